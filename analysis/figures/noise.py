"""Real models: error of one directional derivative against epsilon, and how much of it can be bias."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import noises, text
from analysis.statistics import Interval
from zobench.figures import style, ticks
from zobench.figures.style import DASHDOT, DOTTED, GREY, Look

ARROW: dict[str, Any] = {"marker": "v", "markersize": 4, "linestyle": "none"}
BOUND = Look("#0072B2", "o", "-")
ALONG = Look("#D55E00", "s", "-")


@style.styled
def noise_figure(reports: pd.DataFrame, levels: pd.DataFrame) -> Figure:
    """A panel for each model and dtype, on logarithmic axes, for rows of kind "noise-report" and "noise-level".

    Measured: the error of one directional derivative over the gradient, which bounds the bias, and the bias along the
    gradient. Lines: the truncation and the noise that the probe found, and the epsilon it recommends.
    """
    groups = list(reports.groupby(noises.PLACE, sort=False))
    figure, axes = style.panels(len(groups), 2, 3.3)
    for panel, (place, rows) in zip(axes, groups, strict=True):
        level = levels[(levels[noises.PLACE] == list(place)).all(axis=1)]
        _panel(panel, rows, level.iloc[0] if len(level) else None)
        style.title(panel, ", ".join(map(str, place)))
    style.legend(figure, _key())
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, level: pd.Series | None) -> None:
    axes.set_ylabel("over the norm of the gradient")
    ticks.logarithmic(axes, "y")
    axes.set_xlabel("ε, displacement along u")
    ticks.logarithmic(axes, "x", 5)
    values = pd.concat([rows["relative_error"], rows["along_gradient"].abs()])
    bars = pd.concat([rows.apply(noises.bound, axis=1).map(max), rows.apply(noises.along, axis=1).map(_farthest)])
    low, high = values[values > 0].min() / 3, bars.max() * 1.3
    _measured(axes, rows, low)
    ends = (rows["epsilon"].min() / 1.4, rows["epsilon"].max() * 1.4)
    if level is not None:
        epsilons = np.geomspace(*ends, 100)
        truncation, noise = noises.parts(level, epsilons)
        axes.plot(epsilons, truncation, color=GREY, linestyle=DASHDOT, zorder=1)
        axes.plot(epsilons, noise, color=GREY, linestyle=DOTTED, zorder=1)
        _recommended(axes, level["epsilon"], left=level["epsilon"] ** 2 > ends[0] * ends[1])
    axes.set(xlim=ends, ylim=(low, high * (high / low) ** 0.16))


def _recommended(axes: Axes, epsilon: float, left: bool) -> None:
    """The line at the epsilon that the probe recommends, with its value on the side that has room."""
    axes.axvline(epsilon, color="black", linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
    beside: dict[str, Any] = {"xytext": (-4 if left else 4, -2), "textcoords": "offset points", "fontsize": style.SMALL}
    beside |= {"ha": "right" if left else "left", "va": "top", "xycoords": axes.get_xaxis_transform()}
    rounded = float(f"{epsilon:.2g}")
    shown = text.number(rounded) if rounded >= 1e-3 else ticks.scientific(rounded)
    axes.annotate(f"recommended ε\n{shown}", (epsilon, 1.0), **beside)


def _farthest(interval: Interval) -> float:
    return max(abs(interval.low), abs(interval.high))


def _measured(axes: Axes, rows: pd.DataFrame, floor: float) -> None:
    """Points with 95 % intervals, nudged apart; an interval that reaches `floor`, as 0 does, ends there in an arrow."""
    line: dict[str, Any] = {"color": BOUND.colour, "linewidth": 1.2, "zorder": 2}
    axes.plot(rows["epsilon"] * 0.97, rows["relative_error"], **line)
    for _, row in rows.iterrows():
        bound, along = noises.bound(row), noises.along(row)
        _point(axes, row["epsilon"] * 0.97, (bound.estimate, bound.low, bound.high), BOUND, False, floor)
        size = abs(along.estimate)
        half = along.high - along.estimate
        _point(axes, row["epsilon"] * 1.03, (size, size - half, size + half), ALONG, along.estimate < 0, floor)


def _point(
    axes: Axes, epsilon: float, values: tuple[float, float, float], look: Look, hollow: bool, floor: float
) -> None:
    value, low, high = values
    bar: dict[str, Any] = {"yerr": ([value - max(low, floor)], [high - value]), "elinewidth": 1.0}
    face = "white" if hollow else look.colour
    axes.errorbar([epsilon], [value], fmt=look.marker, color=look.colour, markerfacecolor=face, zorder=3, **bar)
    if low <= floor:
        axes.plot([epsilon], [0.02], transform=axes.get_xaxis_transform(), **ARROW, color=look.colour)


def _key() -> list[Line2D]:
    bare: dict[str, Any] = {"linestyle": "none"}
    return [
        Line2D([], [], color=BOUND.colour, marker=BOUND.marker, label="error of one derivative: bound on the bias"),
        Line2D(
            [], [], color=ALONG.colour, marker=ALONG.marker, label="bias along the gradient: estimates too long", **bare
        ),
        Line2D(
            [],
            [],
            color=ALONG.colour,
            marker="s",
            markerfacecolor="white",
            label="bias against the gradient: estimates too short",
            **bare,
        ),
        Line2D([], [], color=GREY, linestyle=DASHDOT, label="truncation, predicted from the probe"),
        Line2D([], [], color=GREY, linestyle=DOTTED, label="noise, predicted from the probe"),
        Line2D([], [], color="black", linewidth=1.0, linestyle=(0, (4, 2)), label="ε the probe recommends"),
        Line2D([], [], color=GREY, label="interval that reaches 0 or the frame", **ARROW),
    ]
