"""KerZOO against MeZO, seed by seed, at equal forward passes."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from analysis import text
from analysis.outcomes import CELL, counted, metric_name
from analysis.statistics import holm, paired
from analysis.tables.table import Table, table
from zobench.figures import style

FIRST, SECOND = "kerzoo", "mezo"
COLUMNS = ["model", "task", "first", "second", "metric", "quantity", "passes", "comparison"]


def pairs(ends: pd.DataFrame, trajectories: pd.DataFrame) -> pd.DataFrame:
    """KerZOO minus MeZO over common seeds: test accuracy, dev accuracy and dev loss.

    Dev measurements are taken at the largest number of forward passes that every compared run reached; test
    accuracies are compared only where all runs ended after the same number. A diverged run does not shorten
    that budget: it enters with its last finite measurement.
    """
    rows: list[dict[str, Any]] = []
    for (model, task, _), cell in counted(ends).groupby([*CELL, "provenance"]):
        groups = {label: runs.set_index("seed") for label, runs in cell.groupby("label")}
        methods = {label: runs["method"].iloc[0].split(":")[0] for label, runs in groups.items()}
        for first, second in product(style.in_order(groups), repeat=2):
            if (methods[first], methods[second]) == (FIRST, SECOND):
                metric = metric_name(pd.concat([groups[first], groups[second]])["metric"])
                names = {"model": model, "task": task, "first": first, "second": second, "metric": metric}
                rows += [names | row for row in _pair(groups[first], groups[second], trajectories)]
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["adjusted"] = holm([comparison.p for comparison in frame["comparison"]])
    return frame


def _pair(first: pd.DataFrame, second: pd.DataFrame, trajectories: pd.DataFrame) -> Iterator[dict[str, Any]]:
    seeds = first.index.intersection(second.index).sort_values()
    first, second = first.loc[seeds], second.loc[seeds]
    both = pd.concat([first, second])
    passes = both.loc[both["status"] != "diverged", "forward_passes"].unique()
    if len(passes) == 1:
        comparison = paired(first["test_accuracy"], second["test_accuracy"])
        yield {"quantity": "test accuracy", "passes": passes[0], "comparison": comparison}
    rows = trajectories[trajectories["run"].isin(both["run"]) & trajectories["label"].isin(both["label"])]
    rows = rows[rows["seed"].isin(seeds) & rows["model"].isin(both["model"]) & rows["task"].isin(both["task"])]
    budget = rows[rows["status"] != "diverged"].groupby(["label", "seed"])["forward_passes"].max().min()
    for value in ("dev_accuracy", "dev_loss"):
        within = rows[(rows["forward_passes"] <= budget) & np.isfinite(rows[value])]
        last = within.pivot_table(index="seed", columns="label", values=value, aggfunc="last").dropna()
        if len(last) and last.shape[1] == 2:
            comparison = paired(last[first["label"].iloc[0]], last[second["label"].iloc[0]])
            yield {"quantity": value.replace("_", " "), "passes": budget, "comparison": comparison}


def pairs_table(frame: pd.DataFrame) -> Table:
    """The paired comparisons with raw and Holm-adjusted p-values."""
    rows = []
    for row in frame.itertuples():
        accuracy = row.quantity.endswith("accuracy")
        difference = row.comparison.difference
        shown = text.points(difference, signed=True) if accuracy else text.interval(difference, 4, signed=True)
        rows.append(
            {
                "model": row.model,
                "task": row.task,
                "difference": f"{row.first} − {row.second}",
                "in": row.quantity.replace("accuracy", row.metric) + (", points" if accuracy else ""),
                "forward passes": f"{row.passes:,.0f}",
                "pairs": str(row.comparison.pairs),
                "mean [95 %]": shown,
                "p": text.p_value(row.comparison.p),
                "p, Holm": text.p_value(row.adjusted),
            }
        )
    tested = int(frame["adjusted"].notna().sum())
    note = (
        "Paired t tests over seeds; a diverged run enters with its last finite measurement. "
        f"Holm's adjustment is over the {text.count(tested, 'comparison')} with a p."
    )
    return table(rows, "KerZOO against MeZO at equal forward passes", note)
