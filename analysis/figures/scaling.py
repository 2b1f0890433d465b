"""The growth of time with tokens, batch and parameters: a step beside a bare forward."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import speeds
from analysis.machines import HERE, where
from zobench.figures import style, ticks
from zobench.figures.style import DASHED, GREY, SOLID

DASHES = {speeds.FORWARD: DASHED, speeds.STEP: SOLID}
_NAMES = {"tokens": "tokens of a prompt", "batch": "examples a step", "parameters": "parameters of the model"}
_FIXED = {"tokens": ("batch",), "batch": ("tokens",), "parameters": ("batch", "tokens")}


@style.styled
def scaling_figure(points: pd.DataFrame) -> Figure:
    """For points that `speeds.scaling` returned: panels over tokens and, as far as they vary, batch and parameters."""
    shown = [(rows, along) for _, rows in points.groupby(HERE, sort=False) for along in _NAMES if _varies(rows, along)]
    sizes = list(dict.fromkeys(points.sort_values("parameters", kind="stable")["size"]))
    marks = {size: style.shade(place, len(sizes)) for place, size in enumerate(sizes)}
    figure, axes = style.panels(len(shown), 2, 3.2)
    for panel, (rows, along) in zip(axes, shown, strict=True):
        _panel(panel, rows, along, marks)
    jobs = [job for job in DASHES if job in set(points["job"])]
    handles = [Line2D([], [], label=size, linewidth=1.5, **mark) for size, mark in marks.items()]
    handles += [Line2D([], [], color=GREY, linestyle=DASHES[job], label=f"one {job}") for job in jobs]
    style.legend(figure, handles)
    return figure


def slice_of(points: pd.DataFrame, along: str) -> pd.DataFrame:
    """The points of those values of what else varies that have most points to compare along a quantity."""
    fixed = list(_FIXED[along])
    groups = [rows for _, rows in points.groupby(fixed, sort=True)]
    common = sum((points.groupby(name)["seconds"].transform("size") for name in fixed), start=0)
    return max(groups, key=lambda rows: (rows[along].nunique(), len(rows), common[rows.index[0]]))


def _varies(points: pd.DataFrame, along: str) -> bool:
    return along == "tokens" or slice_of(points, along)[along].nunique() > 1


def _panel(axes: Axes, points: pd.DataFrame, along: str, marks: dict[str, dict[str, Any]]) -> None:
    rows = slice_of(points, along)
    lines: Sequence[str] = ["job"] if along == "parameters" else ["size", "job"]
    for names, line in rows.groupby(list(lines), sort=False):
        line, dash = line.sort_values(along), DASHES.get(str(names[-1]), style.DOTTED)
        colour = GREY if along == "parameters" else marks[str(names[0])]["color"]
        axes.plot(line[along], line["seconds"], color=colour, linestyle=dash, zorder=2)
    for _, row in rows.iterrows():
        axes.plot([row[along]], [row["seconds"]], linestyle="none", zorder=3, **marks[row["size"]])
        whisker = [row["seconds_low"], row["seconds_high"]]
        axes.plot([row[along]] * 2, whisker, color=marks[row["size"]]["color"], linewidth=1.0, zorder=3)
    axes.set(xlabel=_NAMES[along], ylabel="seconds, median")
    for which in ("x", "y"):
        ticks.logarithmic(axes, which)
    values = sorted(rows[along].unique())
    between = [float(np.sqrt(values[0] * values[-1]))] if len(values) == 2 else []
    shown = sorted([*values, *(value for value in between if value.is_integer())])
    axes.set_xticks(shown, [_tick(value, max(values)) for value in shown])
    first = rows.iloc[0]
    held = {"batch": f"batch {first['batch']:g}", "tokens": f"{first['tokens']:g} tokens"}
    place = where({"setting": first["setting"], "machine": first["machine"]})
    style.title(axes, ", ".join(filter(None, [*(held[name] for name in _FIXED[along]), place])))


def _tick(value: float, largest: float) -> str:
    """In millions on an axis that goes to millions."""
    return f"{value / 1e6:.3g} M" if largest >= 1e6 else f"{value:,.0f}"
