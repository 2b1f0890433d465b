"""The common parts of figures over epsilon: one panel for each problem, measured points, predicted lines."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from scipy import stats

from zobench.figures import text
from zobench.figures.style import Look

LEVEL = 0.95  # of every interval
Z = float(stats.norm.ppf(0.5 + LEVEL / 2))
PANEL = ["problem", "dim", "noise"]
PROBLEMS = ("quadratic", "cubic", "quartic", "sextic")
MOST_TICKS = 6
ROUNDING = 1e-11  # relative to the gradient: what float64 arithmetic leaves of a bias that is exactly 0


def split(frame: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Title and rows of each panel: one for each problem, dimension and noise level, low degrees first."""
    groups = [(key, rows) for key, rows in frame.groupby(PANEL, dropna=False, sort=True)]
    groups.sort(key=lambda group: (_rank(str(group[0][0])), *map(str, group[0][:1]), group[0][1]))
    return [(title(*key), rows) for key, rows in groups]


def title(problem: str, dim: float, noise: float = 0.0) -> str:
    """`sextic, d = 16`, with the standard deviation of the loss noise where there is any."""
    noisy = f", noise {text.number(noise)}" if noise and not np.isnan(noise) else ""
    return f"{problem}, d = {dim:g}{noisy}"


def _rank(problem: str) -> int:
    return PROBLEMS.index(problem) if problem in PROBLEMS else len(PROBLEMS)


def relative(rows: pd.DataFrame, columns: list[str], power: int = 1) -> pd.DataFrame:
    """Rows whose `columns` are divided by the norm of the gradient (to a power); as they are where that is 0."""
    norm = rows["gradient_norm"].where(rows["gradient_norm"] > 0, 1.0) ** power
    return rows.assign(**{column: rows[column] / norm for column in columns})


def zero(rows: pd.DataFrame, column: str) -> pd.Series:
    """A mask of the biases that are zero up to rounding, which logarithmic axes cannot show."""
    scale = rows["gradient_norm"].where(rows["gradient_norm"] > 0, 1.0)
    return rows[column] <= ROUNDING * scale


def deviation(rows: pd.DataFrame) -> pd.Series:
    """Distance of measured from predicted bias in floors; 0 where rounding explains it."""
    scale = rows["gradient_norm"].where(rows["gradient_norm"] > 0, 1.0)
    rounding = rows["bias_deviation"] * rows["floor"] <= ROUNDING * scale
    return rows["bias_deviation"].mask(rounding, 0.0)


def measured(
    axes: Axes, rows: pd.DataFrame, columns: tuple[str, str], look: Look, hollow: bool, nudge: float = 1.0
) -> None:
    """Points with 95 % intervals, at `nudge` times epsilon; an interval that reaches 0 runs to the axis."""
    value, error = columns
    shown = rows[rows[value] > 0]
    half = (Z * shown[error]).fillna(0.0)
    lower = np.minimum(half, shown[value] * (1 - 1e-9))
    axes.errorbar(
        shown["epsilon"] * nudge,
        shown[value],
        yerr=(lower, half),
        fmt=look.marker,
        color=look.colour,
        markerfacecolor="white" if hollow else look.colour,
        markeredgewidth=1.1,
        markersize=4.5,
        elinewidth=1.0,
        zorder=3 if hollow else 4,
    )


def line_handle(look: Look, name: str = "", hollow: bool = False) -> Line2D:
    """The entry of one method in a legend: its line with its marker, and its name."""
    shown: dict[str, Any] = {
        "linestyle": look.dash,
        "marker": look.marker,
        "markerfacecolor": "white" if hollow else look.colour,
    }
    return Line2D([], [], color=look.colour, label=name, **shown)


def nudges(labels: list[str]) -> dict[str, float]:
    """Factors on epsilon, at most 6 % either way, that keep points of methods from hiding each other."""
    return dict(zip(labels, np.geomspace(0.94, 1.06, len(labels)) if len(labels) > 1 else [1.0], strict=True))


def epsilon_axis(axes: Axes, rows: pd.DataFrame) -> None:
    """A logarithmic axis with the measured displacements as its ticks, every other one where they crowd."""
    epsilons = sorted(rows["epsilon"].unique())
    shown = epsilons[:: -(-len(epsilons) // MOST_TICKS)]
    axes.set(xscale="log", xlabel="ε, displacement along u")
    axes.set_xticks(shown, [f"{epsilon:g}" for epsilon in shown])
    axes.set_xticks([], minor=True)
