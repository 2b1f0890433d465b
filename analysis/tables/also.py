"""The effect of fine-tuning on other tasks: extra evaluation sets before the first step and at the end."""

import pandas as pd

from analysis import text
from analysis.outcomes import CELL, IDENTITY, counted
from analysis.statistics import paired, t_interval
from analysis.tables.table import Table, table
from zobench.figures import style


def further(measured: pd.DataFrame, ends: pd.DataFrame) -> pd.DataFrame:
    """One row for each run and set: the metric at step 0 and at the end, with the label of the run."""
    keys = [*IDENTITY, "set"]
    runs = counted(ends)[[*IDENTITY, "label"]]
    start = measured[(measured["step"] == 0) & (measured["when"] == "evaluation")]
    end = measured[measured["when"] == "end"].drop_duplicates(keys, keep="last")
    both = end.merge(start[[*keys, "accuracy"]].drop_duplicates(keys), on=keys, suffixes=("", "_start"))
    return both.merge(runs, on=IDENTITY)


def also_table(frame: pd.DataFrame) -> Table:
    """Means over seeds, and the change paired by seed, in percent and points."""
    rows = []
    for (model, task, name), cell in frame.groupby([*CELL, "set"]):
        for label in style.in_order(cell["label"].unique()):
            runs = cell[cell["label"] == label]
            rows.append(
                {
                    "model": model,
                    "trained on": task,
                    "method": label,
                    "set": name,
                    "metric": "; ".join(sorted(runs["metric"].unique())),
                    "examples": text.number(runs["examples"].max()),
                    "n": str(len(runs)),
                    "before, %": text.points(t_interval(runs["accuracy_start"])),
                    "at the end, %": text.points(t_interval(runs["accuracy"])),
                    "change": text.margin(paired(runs["accuracy"], runs["accuracy_start"])),
                }
            )
    note = (
        "Sets of --also: measured with the weights that the run ends with, and never used to select them. n: runs; "
        "intervals are 95 %, Student's t over seeds; p two-sided, not adjusted."
    )
    return table(rows, "Further evaluation sets", note)
