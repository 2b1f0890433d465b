"""Predictions for the cells of a map against sampled values."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from scipy import stats

from analysis import phases, text
from analysis.statistics import Z
from zobench.figures import style
from zobench.figures.style import GREY, Look

NAMES = {"mse": "mean squared error", "descent": "gain of one step"}
LINEAR = 3.0  # standard errors on either side of 0 within which the symmetric logarithmic axes are linear
BAND = "#e4e4e4"


@style.styled
def agreement_figure(frame: pd.DataFrame) -> Figure:
    """A column for each goal of rows that `phases.sampled` returned; every row is a point of both upper panels.

    All values are in units of the standard error of their measurement, which a gain of 0 or below has as well.
    """
    goals = [goal for goal in phases.GOALS if goal in set(frame["goal"])]
    looks = style.looks(frame["method"].unique())
    figure, axes = style.panels(3 * len(goals), len(goals), 2.6)
    for column, goal in enumerate(goals):
        values, deviations, histogram = axes[column :: len(goals)]
        rows = frame[frame["goal"] == goal]
        style.title(values, NAMES[goal])
        _values(values, rows, looks)
        _deviations(deviations, rows, looks)
        _histogram(histogram, rows)
    handles = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle="none", label=name)
        for name, look in looks.items()
    ]
    style.legend(figure, handles)
    return figure


def _values(axes: Axes, rows: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Measured against predicted, both over the standard error: on the diagonal but for about one unit either way."""
    for which in ("x", "y"):
        _symmetric(axes, which)
    for method, points in rows.groupby("method"):
        _points(axes, points["predicted"] / points["error"], points["measured"] / points["error"], looks[str(method)])
    ends = [(rows[column] / rows["error"]) for column in ("predicted", "measured")]
    low, high = min(map(min, ends)), max(map(max, ends))
    line = np.concatenate([np.linspace(min(low, 0.0), LINEAR), np.geomspace(LINEAR, max(high, 2 * LINEAR), 300)])
    axes.plot(line, line, color="black", linewidth=1.0, zorder=1)
    axes.fill_between(line, line - Z, line + Z, color=BAND, linewidth=0, zorder=0)
    for which in ("x", "y"):
        _label(axes, which)
    axes.set(xlabel="predicted / standard error", ylabel="measured / standard error")


def _deviations(axes: Axes, rows: pd.DataFrame, looks: dict[str, Look]) -> None:
    """Deviations against predictions, both in standard errors: a bias would lie off 0."""
    _symmetric(axes, "x")
    for method, points in rows.groupby("method"):
        _points(axes, points["predicted"] / points["error"], points["z"], looks[str(method)])
    axes.axhspan(-Z, Z, color=BAND, linewidth=0, zorder=0)
    axes.axhline(0.0, color="black", linewidth=1.0, zorder=1)
    _label(axes, "x")
    most = max(5.0, 1.1 * rows["z"].abs().max())
    axes.set(xlabel="predicted / standard error", ylabel="z = deviation / standard error", ylim=(-most, most))


def _symmetric(axes: Axes, which: str) -> None:
    """Logarithmic on both sides of 0, linear within LINEAR."""
    scale: dict[str, Any] = {"linthresh": LINEAR, "linscale": 0.8}
    (axes.set_xscale if which == "x" else axes.set_yscale)("symlog", **scale)


def _label(axes: Axes, which: str) -> None:
    """0 and powers of ten on either side, in the limits that the points need."""
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    powers = [0.0, *(sign * 10.0**k for sign in (-1, 1) for k in range(1, 12))]
    inside = sorted(value for value in powers if low <= value <= high)
    if len(inside) < 3:
        inside = sorted([*inside, *(value for k in range(1, 6) if low <= (value := 3 * 10.0**k) <= high)])
    every = -(-len([value for value in inside if value > 0]) // 4)
    shown = [value for value in inside if value == 0 or int(np.log10(abs(value)) + 1e-9) % every == 0]
    axes.set(**{f"{which}ticks": shown, f"{which}ticklabels": [f"{value:,.0f}".replace("-", "−") for value in shown]})
    (axes.xaxis if which == "x" else axes.yaxis).set_minor_locator(NullLocator())


def _points(axes: Axes, x: pd.Series, y: pd.Series, look: Look) -> None:
    mark: dict[str, Any] = {"marker": look.marker, "markersize": 2.8, "markeredgewidth": 0.0, "alpha": 0.6}
    axes.plot(x, y, linestyle="none", color=look.colour, rasterized=True, **mark)


def _histogram(axes: Axes, rows: pd.DataFrame) -> None:
    edges = np.arange(-6.25, 6.5, 0.5)
    clipped = rows["z"].clip(-5.99, 5.99)
    axes.hist(clipped, bins=list(edges), color="#b8b8b8", edgecolor="white", linewidth=0.6)
    grid = np.linspace(-6, 6, 241)
    axes.plot(grid, len(rows) * 0.5 * stats.norm.pdf(grid), color="black", linewidth=1.3)
    axes.set(xlabel="z, in standard errors", ylabel="measurements", xlim=(-6.25, 6.25))
    note = f"line: standard\nnormal\nlargest |z| {text.fixed(rows['z'].abs().max())}"
    axes.text(0.98, 0.97, note, transform=axes.transAxes, ha="right", va="top", fontsize=style.SMALL, color=GREY)
