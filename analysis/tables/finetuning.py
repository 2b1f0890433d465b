"""Fine-tuning as numbers: test accuracies, margins over baselines, and runs that came to nothing."""

import math
from typing import Any

import pandas as pd

from analysis import text
from analysis.outcomes import ACCURACY, CELL, counted, metric_name
from analysis.statistics import (
    Comparison,
    Interval,
    against_chance,
    paired,
    t_proportion,
    two_proportions,
    wilson,
)
from analysis.tables.table import Table, table
from zobench.figures import style

BASELINES = ("chance", "zero-shot", "calibrated zero-shot")
STATUSES = ("diverged", "interrupted", "failed", "unfinished")
PROPORTIONS = (ACCURACY, "exact-match", "drop-exact-match")
"""Metrics that are 0 or 1 of each example; others are means, whose spread over examples no row tells."""
NO_COMPARISON = Comparison(Interval(math.nan, math.nan, math.nan), math.nan, 0)


def accuracies(ends: pd.DataFrame, baselines: pd.DataFrame) -> pd.DataFrame:
    """One row for each model, task and label: mean test accuracy, interval, margins, counts of all runs."""
    rows = []
    for (model, task), cell in ends.groupby(CELL):
        known = baselines[(baselines["model"] == model) & (baselines["task"] == task)]
        for label in style.in_order(cell["label"].unique()):
            runs = cell[cell["label"] == label]
            rows.append({"model": model, "task": task, "label": label} | _accuracy(runs, known))
    return pd.DataFrame(rows)


def _accuracy(runs: pd.DataFrame, baselines: pd.DataFrame) -> dict[str, Any]:
    used = counted(runs)
    values = used["test_accuracy"].to_numpy()
    examples = used["test_examples"].max()
    single = len(values) == 1 and _counts(used)
    interval = wilson(float(values[0]), int(examples)) if single else t_proportion(values)
    statuses = {status: int((runs["status"] == status).sum()) for status in STATUSES}
    return {
        "runs": len(runs),
        "n": len(values),
        "ok": int((runs["status"] == "ok").sum()),
        **statuses,
        "repeats": int(runs["repeat"].sum()),
        "accuracy": interval.estimate,
        "low": interval.low,
        "high": interval.high,
        "basis": "" if math.isnan(interval.low) else "Wilson, test examples" if single else "t, seeds",
        "examples": examples,
        **{name: _margin(used, baselines[baselines["name"] == name]) for name in BASELINES},
        **{column: used[column].mean() for column in ("forward_passes", "backward_passes", "seconds")},
        "peak_mb": used["peak_mb"].max(),
        "lr": runs["lr"].iloc[0] if "lr" in runs else math.nan,
        "weights": "; ".join(sorted(runs["weights"].dropna().unique())),
        "provenance": "; ".join(sorted(runs["provenance"].unique())),
        "setting": runs["setting"].iloc[0],
        "metric": metric_name(runs["metric"]),
    }


def _counts(used: pd.DataFrame) -> bool:
    """Whether the test metric is a number of right answers among examples."""
    return bool(used["test_examples"].max() > 0 and used["metric"].isin(PROPORTIONS).all())


def _margin(used: pd.DataFrame, baseline: pd.DataFrame) -> Comparison:
    """Accuracy over a baseline: paired over seeds where it was measured for each, else against its mean."""
    baseline = baseline[baseline["test_accuracy"].notna()]
    if used.empty or baseline.empty:
        return NO_COMPARISON
    by_seed = baseline.groupby("seed")["test_accuracy"].mean()
    reference = used["seed"].map(by_seed).fillna(baseline["test_accuracy"].mean())
    if len(used) > 1 or not _counts(used):
        return paired(used["test_accuracy"], reference)
    examples = used["test_examples"].max()
    accuracy, level = float(used["test_accuracy"].iloc[0]), float(reference.iloc[0])
    test = against_chance if baseline["name"].iloc[0] == "chance" else two_proportions
    return test(accuracy, level, int(examples))


def accuracies_table(frame: pd.DataFrame) -> Table:
    """Test accuracies, or another metric, with their intervals."""
    name = metric_name(frame["metric"])
    rows = [
        _named(row)
        | {"learning rate": _rate(row), "runs": f"{row['n']} of {row['runs']}"}
        | ({} if name == ACCURACY else {"metric": row["metric"]})
        | {f"test {name} [95 %]": text.percent(Interval(row["accuracy"], row["low"], row["high"]))}
        | {"interval": row["basis"]}
        for row in frame.to_dict("records")
    ]
    note = (
        f"Runs: those with a test {name}, diverged ones included, of all. Intervals are 95 %: Student's t over seeds, "
        "cut at 0 and 100 %, or, where there is one seed, Wilson's over test examples; one seed of a metric that is no "
        "share of right answers, as F1, has none."
    )
    return table(rows, f"Final test {name}", note)


def costs_table(frame: pd.DataFrame) -> Table:
    """The cost of the runs, their other options, and the origin of weights and rows."""
    rows = [
        _named(row)
        | {
            "forward passes": _passes(row["forward_passes"]),
            "backward passes": _passes(row["backward_passes"]),
            "seconds": text.number(row["seconds"]),
            "peak memory, MiB": _passes(row["peak_mb"]),
            "setting": row["setting"],
            "weights": row["weights"],
            "rows are": row["provenance"],
        }
        for row in frame.to_dict("records")
    ]
    note = (
        f"Passes and seconds are means over the runs with a test {metric_name(frame['metric'])}, memory is the highest "
        "of any: on CUDA what was allocated, on a CPU the resident set of the process. Setting: all in "
        "which the runs of a method differ."
    )
    return table(rows, "Cost and settings of these runs", note, long=True)


def _named(row: dict[str, Any]) -> dict[str, str]:
    return {"method": row["label"], "model": row["model"], "task": row["task"]}


def _rate(row: dict[str, Any]) -> str:
    return text.setting(row["lr"]) if pd.notna(row["lr"]) else text.NONE


def _passes(value: float) -> str:
    return text.NONE if math.isnan(value) else f"{value:,.0f}"


def overview_table(frame: pd.DataFrame) -> Table:
    """Methods as rows and tasks as columns: test accuracies with intervals; the model beside the method if several."""
    several = frame["model"].nunique() > 1
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for row in frame.to_dict("records"):
        named = {"model": row["model"]} if several else {}
        cell = rows.setdefault((row["model"], row["label"]), {"method": row["label"], **named})
        if row["n"]:
            bounds = text.points(Interval(row["accuracy"], row["low"], row["high"]))
            cell[row["task"]] = bounds if row["n"] == 1 else f"{bounds} ({row['n']})"
    filled = pd.DataFrame(rows.values()).fillna(text.NONE)
    name = metric_name(frame["metric"])
    note = (
        f"Test {name} in percent with 95 % intervals: Student's t over seeds, cut at 0 and 100, their number in "
        "brackets; for one seed Wilson's over test examples, of a share of right answers."
    )
    return table(filled.to_dict("records"), f"Test {name} by method and task", note)


def margins_table(frame: pd.DataFrame) -> Table:
    """The margin of each method over chance and over the untrained model, in points."""
    rows = [
        _named(row) | {"runs": str(row["n"])} | {f"over {name}": text.margin(row[name]) for name in BASELINES}
        for row in frame.to_dict("records")
    ]
    note = (
        f"Points with 95 % intervals: t over seeds, with the baseline's own {metric_name(frame['metric'])} on the same "
        "test examples taken as given; for one seed an exact binomial test (chance) or, as its pairing by example is "
        "unknown, a comparison of two proportions. p two-sided, not adjusted for the number of rows."
    )
    return table(rows, "Margins over baselines", note)


def casualties_table(ends: pd.DataFrame) -> Table:
    """Every run that did not simply end well, by name."""
    odd = ends[(ends["status"] != "ok") | ends["repeat"]]
    rows = [
        {
            "run": row.run,
            "method": row.label,
            "model": row.model,
            "task": row.task,
            "seed": f"{row.seed:g}",
            "status": "repeats an earlier seed, left out" if row.repeat else row.status,
            "reason": row.reason if isinstance(row.reason, str) else "",
        }
        for row in odd.itertuples()
    ]
    return (
        table(rows, "Runs that diverged, failed, stopped early or repeat another")
        if rows
        else Table("", pd.DataFrame())
    )
