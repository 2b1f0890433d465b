"""The factor by which KerZOO is better than MeZO: every cell of every map as one point."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import phases, text
from zobench.figures import style, ticks


@style.styled
def advantage_figure(cells: pd.DataFrame) -> Figure:
    """A panel for each goal, a band for each map, in it a line for each bend; a point for each cell of `contests`."""
    goals = [goal for goal in phases.GOALS if goal in set(cells["goal"])]
    bends, noises = (sorted(cells[name].unique()) for name in ("bend", "noise"))
    bands = max(
        cells.loc[cells["goal"] == goal, ["map", "common_epsilon"]].drop_duplicates().shape[0] for goal in goals
    )
    figure, axes = style.panels(len(goals), 2, 0.6 + 0.28 * bands * (len(bends) + 1), share_y=True)
    marks = {
        noise: style.shade(place, len(noises)) | {"markersize": 3.6, "alpha": 0.85}
        for place, noise in enumerate(noises)
    }
    for panel, goal in zip(axes, goals, strict=True):
        _panel(panel, cells[cells["goal"] == goal], bends, marks)
        style.title(panel, f"by {phases.GOALS[goal]}")
    handles = [Line2D([], [], linestyle="none", label=text.power(noise), **mark) for noise, mark in marks.items()]
    style.legend(figure, handles, "standard deviation of the noise of one evaluation")
    return figure


def _panel(axes: Axes, cells: pd.DataFrame, bends: list[float], marks: dict[float, dict[str, Any]]) -> None:
    height, places, names = 0.0, [], []
    for (name, epsilon), band in phases.split(cells, ["map", "common_epsilon"]):
        place: dict[str, Any] = {
            "transform": axes.get_yaxis_transform(),
            "va": "center",
            "fontsize": style.SMALL,
            "weight": "bold",
        }
        axes.text(0.012, height - 0.85, phases.where(name, epsilon), **place)
        for bend in bends:
            _line(axes, band[band["bend"] == bend], height, marks)
            places.append(height)
            names.append(text.number(bend))
            height += 1
        height += 1.2
    axes.axvline(1.0, color="black", linewidth=1.2, zorder=1)
    axes.set(ylim=(height - 1.4, -1.5), xlabel="times better than MeZO (below 1: worse)")
    ticks.logarithmic(axes, "x", 5)
    axes.set_yticks(places, names, fontsize=style.SMALL)
    if style.leftmost(axes):
        axes.set_ylabel("bend: scale of the terms beyond the quadratic ones (0: f is quadratic)")
    axes.tick_params(axis="y", length=0)
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.1, max(high * 1.1, 4.0))


def _line(axes: Axes, cells: pd.DataFrame, height: float, marks: dict[float, dict[str, Any]]) -> None:
    """One bend: noise levels side by side, so that equal ratios do not hide each other."""
    places = dict(zip(marks, np.linspace(-0.33, 0.33, len(marks)), strict=True))
    for noise, mark in marks.items():
        values = cells.loc[cells["noise"] == noise, "advantage"].dropna()
        axes.plot(values, np.full(len(values), height + places[noise]), linestyle="none", **mark)
