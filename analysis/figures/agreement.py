"""What was predicted of the cells of a map against what sampling found."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from analysis import phases, style, text
from analysis.statistics import Z
from analysis.style import GREY, Look

NAMES = {"mse": "mean squared error", "descent": "gain of one step"}
RESOLVED = 0.1  # relative standard error up to which a ratio says something


@style.styled
def agreement_figure(frame: pd.DataFrame) -> Figure:
    """For each goal of rows that `phases.sampled` returned: values, their ratios with intervals, and their z."""
    goals = [goal for goal in phases.GOALS if goal in set(frame["goal"])]
    looks = style.looks(frame["method"].unique())
    figure, axes = style.panels(3 * len(goals), 3, (4.1, 3.3))
    for place, goal in enumerate(goals):
        rows = frame[frame["goal"] == goal]
        _values(axes[3 * place], rows, NAMES[goal], looks)
        _ratios(axes[3 * place + 1], rows, looks)
        _z(axes[3 * place + 2], rows)
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="none", label=name)
        for name, look in looks.items()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6))
    return figure


def _values(axes: Axes, rows: pd.DataFrame, name: str, looks: dict[str, Look]) -> None:
    """Points with intervals on the diagonal; an interval that reaches 0 runs to the axis."""
    shown = rows[(rows["measured"] > 0) & (rows["predicted"] > 0)]
    for method, points in shown.groupby("method"):
        half = Z * points["error"]
        lower = np.minimum(half, points["measured"] * (1 - 1e-9))
        _points(axes, points["predicted"], points["measured"], (lower, half), looks[str(method)])
    low, high = (shown["predicted"].min(), shown["predicted"].max()) if len(shown) else (0.1, 1.0)
    axes.plot([low, high], [low, high], color="black", linewidth=1.0, zorder=1)
    axes.set(xscale="log", yscale="log", xlabel="predicted", ylabel="measured", title=name)
    axes.set_ylim(low / 3, high * 3)


def _ratios(axes: Axes, rows: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Ratios with intervals against the relative standard error of the measurement, as far as that is resolved."""
    relative = rows["error"] / rows["predicted"]
    shown = rows[relative <= RESOLVED]
    for method, points in shown.groupby("method"):
        error = relative[points.index]
        _points(axes, error, points["measured"] / points["predicted"], (Z * error, Z * error), looks[str(method)])
    axes.axhline(1.0, color="black", linewidth=1.0, zorder=1)
    axes.set(xscale="log", xlabel="standard error / predicted", ylabel="measured / predicted")
    axes.set_ylim(1 - 4 * RESOLVED, 1 + 4 * RESOLVED)
    if len(shown) < len(rows):
        note = f"not shown: {len(rows) - len(shown)} of {len(rows)}\nwith a larger error"
        axes.text(0.03, 0.03, note, transform=axes.transAxes, va="bottom", fontsize=8.5, color=GREY)


def _points(axes: Axes, x: pd.Series, y: pd.Series, error: tuple[pd.Series, pd.Series], look: Look) -> None:
    bars: dict[str, Any] = {"fmt": "none", "ecolor": look.colour, "elinewidth": 0.5, "alpha": 0.35}
    axes.errorbar(x, y, yerr=error, rasterized=True, **bars)
    mark: dict[str, Any] = {"marker": look.marker, "markersize": 3.2, "markeredgewidth": 0.0, "alpha": 0.7}
    axes.plot(x, y, linestyle="none", color=look.colour, rasterized=True, **mark)


def _z(axes: Axes, rows: pd.DataFrame) -> None:
    edges = np.arange(-6.25, 6.5, 0.5)
    clipped = rows["z"].clip(-5.99, 5.99)
    axes.hist(clipped, bins=list(edges), color="#b8b8b8", edgecolor="white", linewidth=0.6)
    grid = np.linspace(-6, 6, 241)
    axes.plot(grid, len(rows) * 0.5 * stats.norm.pdf(grid), color="black", linewidth=1.3)
    axes.set(xlabel="z = (measured − predicted) / standard error", ylabel="measurements", xlim=(-6.25, 6.25))
    worst = rows["z"].abs().max()
    note = f"line: standard normal\nlargest |z| {text.fixed(worst)}"
    axes.text(0.98, 0.97, note, transform=axes.transAxes, ha="right", va="top", fontsize=8.5, color=GREY)
