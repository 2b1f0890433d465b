"""Descent rows -> how much slower than MeZO each method is at equal evaluations, predicted and measured."""

from typing import Any

import numpy as np
import pandas as pd

from analysis.statistics import Interval, ratio_of_means
from zobench.figures import style

REFERENCE = "mezo"
PANEL = ["problem", "dim", "noise", "rate"]
KINDS = ("at start", "along the run", "measured")


def speeds(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the speed of each run, the share of the gap to the minimum that one evaluation closes.

    A column for each kind: predicted at the first step, predicted at every step along the run, measured over the run.
    """
    shares = (
        rows["first_predicted"] / rows["start_gap"] / rows["cost"],
        rows["predicted_share"] / rows["evaluations"],
        rows["realised_share"] / rows["evaluations"],
    )
    return rows.assign(**dict(zip(KINDS, shares, strict=True)))


def slowness(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each panel and label of `speeds`: MeZO's mean speed over the label's, as an Interval over seeds.

    `z` sums the deviations of realised from predicted gains over the runs, in standard errors; `seeds` are those that
    both have. Panels without MeZO are left out.
    """
    made: list[dict[str, Any]] = []
    for values, panel in frame.groupby(PANEL, sort=False, dropna=False):
        last = panel.drop_duplicates(["label", "seed"], keep="last")
        runs = {str(label): mine.set_index("seed") for label, mine in last.groupby("label")}
        base = runs.get(REFERENCE)
        if base is None:
            continue
        for label in style.in_order(runs):
            own = runs[label]
            seeds = own.index.intersection(base.index)
            ratios = {kind: ratio_of_means(base.loc[seeds, kind], own.loc[seeds, kind]) for kind in KINDS}
            if label == REFERENCE:
                ratios = dict.fromkeys(KINDS, Interval(1.0, float("nan"), float("nan")))
            z = own["z"].dropna()
            sums = {"z": float(z.sum() / np.sqrt(len(z))) if len(z) else float("nan"), "worst": z.abs().max()}
            made.append(dict(zip(PANEL, values, strict=True)) | {"label": label, "seeds": len(seeds)} | ratios | sums)
    return pd.DataFrame(made)


def inside(row: pd.Series) -> bool | None:
    """Whether the slowness predicted along the run lies in the 95 % interval of the measured one; None without one."""
    measured, predicted = row["measured"], row["along the run"].estimate
    return None if np.isnan(measured.low) else bool(measured.low <= predicted <= measured.high)
