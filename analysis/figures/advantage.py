"""How many times better than MeZO KerZOO is: every cell of every map as one point."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from analysis import phases, style, text
from analysis.style import GREY


@style.styled
def advantage_figure(cells: pd.DataFrame) -> Figure:
    """A panel for each goal, a band for each map, in it a line for each bend; a point for each cell of `contests`."""
    goals = [goal for goal in phases.GOALS if goal in set(cells["goal"])]
    bends, noises = (sorted(cells[name].unique()) for name in ("bend", "noise"))
    bands = max(
        cells.loc[cells["goal"] == goal, ["map", "common_epsilon"]].drop_duplicates().shape[0] for goal in goals
    )
    figure, axes = style.panels(len(goals), 2, (6.0, 1.3 + 0.21 * bands * (len(bends) + 1)))
    marks = {noise: style.shade(place, len(noises)) | {"markersize": 4.2} for place, noise in enumerate(noises)}
    for panel, goal in zip(axes, goals, strict=True):
        _panel(panel, cells[cells["goal"] == goal], bends, marks)
        panel.set_title(f"by {phases.GOALS[goal]}")
    handles = [Line2D([], [], linestyle="none", label=text.power(noise), **mark) for noise, mark in marks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), title="noise of one evaluation")
    return figure


def _panel(axes: Axes, cells: pd.DataFrame, bends: list[float], marks: dict[float, dict[str, Any]]) -> None:
    height, ticks, names = 0.0, [], []
    for (name, epsilon), band in phases.split(cells, ["map", "common_epsilon"]):
        place = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8.5, "weight": "bold"}
        axes.text(0.012, height - 0.85, phases.where(name, epsilon), **place)
        for bend in bends:
            _line(axes, band[band["bend"] == bend], height, marks)
            ticks.append(height)
            names.append(f"bend {text.number(bend)}")
            height += 1
        height += 1.2
    axes.axvline(1.0, color="black", linewidth=1.2, zorder=1)
    axes.set(xscale="log", ylim=(height - 1.4, -1.5), xlabel="times better than MeZO")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: text.power(value)))
    axes.set_yticks(ticks, names, fontsize=8)
    axes.tick_params(axis="y", length=0)
    low, high = axes.get_xlim()
    axes.set_xlim(low, max(high, 4.0))
    for side, words, ha in ((1 / 1.15, "KerZOO worse", "right"), (1.15, "better", "left")):
        axes.text(side, -0.85, words, ha=ha, va="center", fontsize=8.5, color=GREY)


def _line(axes: Axes, cells: pd.DataFrame, height: float, marks: dict[float, dict[str, Any]]) -> None:
    """One bend: noise levels side by side, so that equal ratios do not hide each other."""
    places = dict(zip(marks, np.linspace(-0.3, 0.3, len(marks)), strict=True))
    for noise, mark in marks.items():
        values = cells.loc[cells["noise"] == noise, "advantage"].dropna()
        axes.plot(values, np.full(len(values), height + places[noise]), linestyle="none", **mark)
