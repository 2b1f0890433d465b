"""Real models: error of one directional derivative against epsilon, and how much of it can be bias."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import noises, style, text
from analysis.figures import panels
from analysis.style import DASHDOT, DOTTED, GREY, Look

BOUND = Look("#0072B2", "o", "-")
ALONG = Look("#D55E00", "s", "-")


@style.styled
def noise_figure(reports: pd.DataFrame, levels: pd.DataFrame) -> Figure:
    """A panel for each model and dtype, on logarithmic axes, for rows of kind "noise-report" and "noise-level".

    Measured: the error of one directional derivative over the gradient, which bounds the bias, and the bias along the
    gradient. Lines: the truncation and the noise that the probe found, and the epsilon it recommends.
    """
    groups = list(reports.groupby(noises.PLACE, sort=False))
    figure, axes = style.panels(len(groups), 3, (4.7, 4.2))
    for panel, (place, rows) in zip(axes, groups, strict=True):
        level = levels[(levels[noises.PLACE] == list(place)).all(axis=1)]
        _panel(panel, rows, level.iloc[0] if len(level) else None)
        panel.set_title(", ".join(map(str, place)))
    figure.legend(handles=_key(), loc="outside lower center", ncols=min(len(groups), 3))
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, level: pd.Series | None) -> None:
    axes.set(yscale="log", ylabel="relative to the gradient")
    panels.epsilon_axis(axes, rows[rows["epsilon"] != (level["epsilon"] if level is not None else None)])
    _measured(axes, rows)
    values = pd.concat([rows["relative_error"], rows["along_gradient"].abs()])
    values = values[values > 0]
    low, high = values.min() / 3, values.max() * 3
    ends = (rows["epsilon"].min() / 1.4, rows["epsilon"].max() * 1.4)
    if level is not None:
        epsilons = np.geomspace(*ends, 100)
        truncation, noise = noises.parts(level, epsilons)
        axes.plot(epsilons, truncation, color=GREY, linestyle=DASHDOT, zorder=1)
        axes.plot(epsilons, noise, color=GREY, linestyle=DOTTED, zorder=1)
        axes.axvline(level["epsilon"], color="black", linewidth=1.0, linestyle=(0, (4, 2)), zorder=1)
        note = f" recommended ε\n {text.number(level['epsilon'], 2)}"
        axes.text(level["epsilon"], 0.985, note, transform=axes.get_xaxis_transform(), va="top", fontsize=8.5)
    axes.set(xlim=ends, ylim=(low, high * (high / low) ** 0.12))


def _measured(axes: Axes, rows: pd.DataFrame) -> None:
    """Points with 95 % intervals, nudged apart; an interval that reaches 0 runs to the axis."""
    line: dict[str, Any] = {"color": BOUND.colour, "linewidth": 1.2, "zorder": 2}
    axes.plot(rows["epsilon"] * 0.97, rows["relative_error"], **line)
    for _, row in rows.iterrows():
        bound, along = noises.bound(row), noises.along(row)
        _point(axes, row["epsilon"] * 0.97, (bound.estimate, bound.low, bound.high), BOUND, hollow=False)
        size = abs(along.estimate)
        half = along.high - along.estimate
        _point(axes, row["epsilon"] * 1.03, (size, size - half, size + half), ALONG, hollow=along.estimate < 0)


def _point(axes: Axes, epsilon: float, values: tuple[float, float, float], look: Look, hollow: bool) -> None:
    value, low, high = values
    bar: dict[str, Any] = {"yerr": ([value - max(low, value * 1e-9)], [high - value]), "elinewidth": 1.0}
    face = "white" if hollow else look.colour
    axes.errorbar([epsilon], [value], fmt=look.marker, color=look.colour, markerfacecolor=face, zorder=3, **bar)


def _key() -> list[Line2D]:
    bare: dict[str, Any] = {"linestyle": "none"}
    return [
        Line2D([], [], color=BOUND.colour, marker=BOUND.marker, label="error of one derivative: bound on the bias"),
        Line2D([], [], color=ALONG.colour, marker=ALONG.marker, label="bias along the gradient, size", **bare),
        Line2D([], [], color=ALONG.colour, marker="s", markerfacecolor="white", label="the same, against it", **bare),
        Line2D([], [], color=GREY, linestyle=DASHDOT, label="truncation, predicted from the probe"),
        Line2D([], [], color=GREY, linestyle=DOTTED, label="noise, predicted from the probe"),
        Line2D([], [], color="black", linewidth=1.0, linestyle=(0, (4, 2)), label="ε the probe recommends"),
    ]
