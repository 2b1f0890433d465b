"""The gap to the minimum at equal loss evaluations, and the choice of learning rates."""

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis import rates, text
from analysis.figures.convergence import aligned, band, band_name, measure
from analysis.statistics import Comparison, holm, paired
from analysis.tables.table import Table, table
from zobench.figures import panels, style
from zobench.figures.frame import method_name

REFERENCE = "mezo"
CELL = ["problem", "dim"]
FALLING = 0.5  # of the gap after three quarters of the evaluations: an end above it is a floor


def faults(frame: pd.DataFrame, tune: pd.DataFrame) -> dict[tuple[str, float], list[str]]:
    """What keeps the methods of each problem from being compared: best rates at the edge of what was tried."""
    grids = rates.synthetic(tune)
    by_problem = {}
    for problem, cell in frame.groupby(CELL):
        methods = set(cell["method"])
        by_problem[problem] = rates.faults(one for one in grids.get(problem, []) if one.method in methods)
    return by_problem


def finals(frame: pd.DataFrame, tune: pd.DataFrame) -> pd.DataFrame:
    """One row for each problem and label: its gap at the largest count of evaluations that all reached.

    `ratio` compares log gaps with those of MeZO, paired over seeds, `adjusted` is its p by Holm over all of them; a
    seed that diverged in either, or whose gap is not above 0, has no ratio, nor has a problem on which a best rate of
    `tune` lies at the edge of its grid. `floor`: whether the median gap is no longer below FALLING times that of three
    quarters of the evaluations: epsilon's bias and the noise of steps hold it there, and it says nothing of speed.
    """
    rows: list[dict[str, Any]] = []
    wrong = faults(frame, tune)
    for (problem, dim), cell in frame.groupby(CELL):
        value = measure(cell)
        budget = cell[cell["status"] != "diverged"].groupby("label")["evaluations"].max().min()
        curves = {label: aligned(runs, value).loc[:budget] for label, runs in cell.groupby("label")}
        ends = {label: curves[label].iloc[-1] for label in style.in_order(curves) if len(curves[label])}
        for label, end in ends.items():
            runs = cell[cell["label"] == label]
            low, middle, high = (part.iloc[0] for part in band(end.to_frame().T))
            rows.append(
                {"problem": problem, "dim": dim, "label": label, "budget": budget, "seeds": len(end)}
                | {
                    "diverged": int(np.isinf(end).sum()),
                    "lr": runs["lr"].iloc[0],
                    "epsilon": runs["epsilon"].iloc[0],
                }
                | {
                    "median": middle,
                    "low": low,
                    "high": high,
                    "measure": value,
                    "floor": value == "gap" and _floor(curves[label]),
                }
                | {"ratio": None if label == REFERENCE or wrong[problem, dim] else _ratio(end, ends.get(REFERENCE))}
            )
    frame = pd.DataFrame(rows)
    compared = [one.p if isinstance(one, Comparison) else math.nan for one in frame["ratio"]] if rows else []
    return frame.assign(adjusted=holm(compared))


def _floor(curve: pd.DataFrame) -> bool:
    """Whether the median over seeds is finite and falls no more in the last quarter of the evaluations."""
    median = band(curve)[1]
    before = median.loc[: 0.75 * median.index[-1]].iloc[-1]
    return bool(FALLING * before < median.iloc[-1] < math.inf)


def _ratio(end: pd.Series, reference: pd.Series | None) -> Comparison | None:
    if reference is None:
        return None
    both = pd.concat([end, reference], axis=1, keys=["one", "two"]).dropna()
    both = both[np.isfinite(both).all(axis=1) & (both > 0).all(axis=1)]
    return paired(np.log10(both["one"]), np.log10(both["two"])) if len(both) else None


def ratio_text(end: Any) -> str:
    """`6.1 [5.0, 7.4], p = 0.001 (Holm 0.004), 4 of 5 seeds`: 10 to the mean difference of log gaps, of a row of
    `finals`.
    """
    if not isinstance(end.ratio, Comparison):
        return text.NONE
    estimate, low, high = (10**bound for bound in end.ratio.difference)
    bounds = "" if math.isnan(low) else f" [{text.number(low)}, {text.number(high)}]"
    p = "" if math.isnan(end.ratio.p) else f", {text.p_phrase(end.ratio.p)} (Holm {text.p_value(end.adjusted)})"
    seeds = f", {end.ratio.pairs} of {end.seeds} seeds" if end.ratio.pairs < end.seeds else ""
    return f"{text.number(estimate)}{bounds}{p}{seeds}"


def finals_table(frame: pd.DataFrame, tune: pd.DataFrame) -> Table:
    """Final gaps at equal evaluations, with the learning rate each method was given."""
    rows = []
    for end in finals(frame, tune).itertuples():
        rows.append(
            {
                "problem": panels.title(end.problem, end.dim),
                "method": end.label,
                "learning rate": text.rate(end.lr),
                "ε": text.number(end.epsilon),
                "evaluations": f"{end.budget:,.0f}",
                "seeds": str(end.seeds),
                "diverged": str(end.diverged),
                "gap, median": text.number(end.median),
                band_name(end.seeds): f"{text.number(end.low)} to {text.number(end.high)}",
                "at the end": "floor" if end.floor else "falls" if math.isfinite(end.median) else "diverged",
                f"gap / gap of {REFERENCE}": ratio_text(end),
            }
        )
    note = (
        "A diverged seed counts as an infinite gap in the median. The ratio is the geometric mean over seeds, paired, "
        "with a 95 % t-interval on its logarithm; seeds that diverged in either method, or whose gap is 0 or below, "
        "have none, and the number of the others is told. Holm's adjustment of p is over all ratios of the table. "
        "There is no ratio where a best learning rate lies at the edge of those tried. At the end: floor where "
        f"the median gap is not below {FALLING:g} times that after three quarters of the evaluations: the bias of ε "
        "and the noise of steps hold it there, and a ratio compares floors, not speeds."
    )
    return table(rows, "Gap at equal loss evaluations", note)


def tuning_table(tune: pd.DataFrame) -> Table:
    """The best learning rate of each method among those tried, and whether it lay inside them."""
    rows = [
        {
            "problem": panels.title(problem, dim),
            "method": method_name(grid.method),
            "trials": str(len(grid.losses)),
            "diverged": str(sum(math.isinf(loss) for loss in grid.losses.values())),
            "best rate": text.rate(grid.best) if not math.isnan(grid.best) else text.NONE,
            "loss there": text.number(grid.losses.get(grid.best, math.nan)),
            "tried": f"{text.rate(min(grid.losses))} to {text.rate(max(grid.losses))}",
            "inside": "yes" if grid.inside else "no !",
        }
        for (problem, dim), grids in sorted(rates.synthetic(tune).items())
        for grid in sorted(grids, key=lambda one: one.method)
    ]
    note = "Inside: a smaller and a larger rate were tried and are worse. If not, the true best may lie beyond."
    return table(rows, "Learning rates tried", note)
