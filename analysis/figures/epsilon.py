"""Epsilon that chooses itself against the best on a grid, and against a fixed one: every cell of the suite."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis import text
from zobench.figures import style, ticks
from zobench.figures.style import Look

WITHIN = 2.0  # the factor of the best that is asked for
BAND = "#e4e4e4"
AUTO = Look("#0072B2", "o", "-")
FIXED = Look("#D55E00", "s", "-")
MOST = 1e6  # ratios beyond are drawn here, as arrows


@style.styled
def epsilon_figure(frame: pd.DataFrame) -> Figure:
    """A panel for each dtype, a band for each problem, in it a line for each noise level; `frame` has a row a cell."""
    dtypes, problems = list(dict.fromkeys(frame["dtype"])), list(dict.fromkeys(frame["problem"]))
    noises = sorted(frame["noise"].unique())
    lines = len(problems) * (len(noises) + 1)
    figure, axes = style.panels(len(dtypes), 2, 0.8 + 0.15 * lines, share_y=True)
    for panel, dtype in zip(axes, dtypes, strict=True):
        _panel(panel, frame[frame["dtype"] == dtype], problems, noises)
        style.title(panel, f"losses in {dtype}")
    style.legend(figure, _key(frame))
    return figure


def _panel(axes: Axes, cells: pd.DataFrame, problems: list[str], noises: list[float]) -> None:
    height, places, names = 0.0, [], []
    for problem in problems:
        at_left: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": style.SMALL}
        axes.text(0.99, height - 0.75, problem, ha="right", weight="bold", **at_left)
        for noise in noises:
            for cell in cells[(cells["problem"] == problem) & (cells["noise"] == noise)].itertuples():
                _cell(axes, height, cell)
            places.append(height)
            names.append(text.power(noise))
            height += 1
        height += 1
    axes.axvspan(1.0, WITHIN, color=BAND, linewidth=0, zorder=0)
    axes.axvline(1.0, color="black", linewidth=0.9, zorder=1)
    axes.set(ylim=(height - 1.3, -1.5), xlabel="excess error over that of the best ε")
    ticks.logarithmic(axes, "x", 6)
    axes.set_yticks(places, names, fontsize=style.SMALL)
    if style.leftmost(axes):
        axes.set_ylabel("standard deviation of the noise of one evaluation, relative to |f(x)|")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", linewidth=0.4)


def _cell(axes: Axes, height: float, cell: Any) -> None:
    """The fixed epsilon, the median choice, and a line to the worst single choice."""
    fixed, auto, worst = (min(value, MOST) for value in (cell.fixed_ratio, cell.ratio, cell.worst_ratio))
    axes.plot([auto, worst], [height, height], color=AUTO.colour, linewidth=1.2, zorder=2)
    axes.plot([auto], [height], marker=AUTO.marker, color=AUTO.colour, markersize=4.2, zorder=3)
    marker = FIXED.marker if fixed < MOST else ">"
    axes.plot([fixed], [height], marker=marker, color=FIXED.colour, markersize=4, markerfacecolor="white", zorder=2)


def _key(frame: pd.DataFrame) -> list[Line2D | Patch]:
    fixed = frame["fixed_epsilon"].dropna().unique()
    name = f"fixed ε = {text.number(fixed[0])}" if len(fixed) == 1 else "fixed ε"
    bare: dict[str, Any] = {"linestyle": "none", "markersize": 5}
    marks = [
        Line2D(
            [], [], marker=AUTO.marker, color=AUTO.colour, markersize=5, label="ε chosen by itself, to the worst choice"
        ),
        Line2D([], [], marker=FIXED.marker, color=FIXED.colour, markerfacecolor="white", label=name, **bare),
    ]
    if (frame["fixed_ratio"] >= MOST).any():
        marks.append(Line2D([], [], marker=">", color=FIXED.colour, label=f"beyond {text.power(MOST)}", **bare))
    return [*marks, Patch(facecolor=BAND, label=f"within a factor {WITHIN:g} of the best")]
