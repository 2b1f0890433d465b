"""The slowness of SGD along each estimate against MeZO: predicted before a run and along it, and measured."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.slowness import PANEL
from zobench.figures import panels, style, ticks
from zobench.figures.style import GREY, Look


@style.styled
def descent_figure(frame: pd.DataFrame) -> Figure:
    """Methods as lines of a panel for each problem and rate, for rows that `slowness.slowness` returned."""
    looks = style.looks(frame["label"].unique())
    groups = list(frame.groupby(PANEL, sort=False, dropna=False))
    figure, axes = style.panels(len(groups), 2, 0.95 + 0.25 * len(looks), share_y=True)
    for panel, ((problem, dim, noise, rate), rows) in zip(axes, groups, strict=True):
        _panel(panel, rows, looks)
        style.title(panel, f"{panels.title(problem, dim, noise)}: {rate_name(rate)}")
    style.legend(figure, _key())
    return figure


def rate_name(rate: str) -> str:
    """The learning rate of the methods of a panel."""
    return {"own best": "each at its own best rate", "equal": "all at one small rate"}.get(rate, f"rate {rate}")


def _panel(axes: Axes, rows: pd.DataFrame, looks: dict[str, Look]) -> None:
    heights = {label: height for height, label in enumerate(looks)}  # the same in all panels, which share their names
    for _, row in rows.iterrows():
        height, look, measured = heights[row["label"]], looks[row["label"]], row["measured"]
        axes.plot(
            [row["at start"].estimate], [height], "|", color="black", markersize=15, markeredgewidth=1.3, zorder=2
        )
        axes.plot([row["along the run"].estimate], [height - 0.2], marker="v", color=GREY, markersize=5, zorder=3)
        if not np.isnan(measured.low):
            axes.plot([measured.low, measured.high], [height, height], color=look.colour, linewidth=1.8, zorder=3)
        axes.plot([measured.estimate], [height], marker=look.marker, color=look.colour, markersize=7, zorder=4)
    axes.axvline(1.0, color=GREY, linewidth=0.8, zorder=1)
    axes.set_yticks(range(len(looks)), list(map(style.wrapped, looks)))
    axes.set(ylim=(len(looks) - 0.45, -0.75), xlabel="times slower than mezo")
    if style.leftmost(axes):
        axes.set_ylabel("estimator")
    _limits(axes, rows)
    axes.grid(axis="y", visible=False)


def _limits(axes: Axes, rows: pd.DataFrame) -> None:
    columns = ("at start", "along the run", "measured")
    values = np.array([bound for column in columns for interval in rows[column] for bound in interval], dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    axes.set_xlim(values.min() / 1.15, values.max() * 1.15)
    ticks.logarithmic(axes, "x")


def _key() -> list[Line2D]:
    bare: dict[str, Any] = {"linestyle": "none"}
    return [
        Line2D([], [], color="black", marker="|", markersize=12, label="predicted from the first step", **bare),
        Line2D([], [], color=GREY, marker="v", label="predicted along the run", **bare),
        Line2D([], [], color=GREY, marker="o", label="measured, 95 % interval"),
    ]
