"""Cells and tables of the runs of a study over seeds, for the pages."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from analysis.statistics import Interval, paired, t_interval
from zobench.run.records import Row, rows_now

Seeds = Mapping[int, Row]
"""The final row of each seed."""


def trials(folder: Path, arms: Sequence[str]) -> str:
    """Return the dev losses of the arms' trials of learning rates in Markdown: at the start, the least, at the end."""
    tried = [row for row in rows_now(folder) if row["kind"] == "arm-run" and row["group"] == "tune"]
    passes = "/".join(str(n) for n in sorted({row["forward_passes"] for row in tried}))
    lines = [
        f"| trial of {passes} forward passes | learning rate | dev loss: start | least | end |",
        "|---|---|---|---|---|",
    ]
    for arm in arms:
        for row in sorted((row for row in tried if row["arm"] == arm), key=lambda row: float(row["lr"])):
            losses = [loss for _, loss, _ in row["curve"]]
            ended = " | ".join(
                "not finite" if x is None else f"{x:.2f}" for x in (losses[0], row["best_dev_loss"], losses[-1])
            )
            lines.append(f"| {arm} | {row['lr']:g} | {ended} |")
    return "\n".join(lines)


def values(rows: Seeds, name: str) -> list[float]:
    """The values of a metric in the order of the seeds, accuracies in percent."""
    return [(100 if name.endswith("accuracy") else 1) * rows[seed][name] for seed in sorted(rows)]


def mean(rows: Seeds, name: str) -> str:
    """Return the mean over seeds with its 95 % Student interval."""
    return cell(t_interval(values(rows, name)), _digits(name))


def difference(rows: Seeds, base: Seeds, name: str) -> str:
    """Return the mean difference from the base, paired by seed, with its interval."""
    if rows is base:
        return "-"
    return cell(paired(values(rows, name), values(base, name)).difference, _digits(name), "+")


def _digits(name: str) -> int:
    return 1 if name.endswith("accuracy") else 3


def cell(value: Interval, digits: int, sign: str = "") -> str:
    """Return an estimate with its interval, if it has one."""
    estimate, low, high = (f"{number:{sign}.{digits}f}" for number in value)
    return estimate if math.isnan(value.low) else f"{estimate} ({low} to {high})"
