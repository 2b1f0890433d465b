"""Mean squared error against epsilon on a network with noisy losses: where correcting the bias pays."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.statistics import Z
from zobench.figures import style, ticks
from zobench.figures.frame import method_name

PANEL = ["noise", "evaluations"]


@style.styled
def large_figure(rows: pd.DataFrame) -> Figure:
    """A panel for each noise and number of evaluations a step, for rows of kind "claim-large"."""
    groups = list(rows.groupby(PANEL, sort=False))
    figure, axes = style.panels(len(groups), 2, 2.6)
    looks = style.looks(rows["method"].unique())
    for panel, ((noise, evaluations), mine) in zip(axes, groups, strict=True):
        _panel(panel, mine, looks)
        style.title(panel, f"noise: {noise}; {evaluations:,.0f} evaluations")
    key = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dash, label=method_name(method))
        for method, look in looks.items()
    ]
    style.legend(figure, key)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    ticks.logarithmic(axes, "x", 4)
    ticks.logarithmic(axes, "y")
    axes.set(xlabel="ε", ylabel="squared error over |∇f|²")
    for method, look in looks.items():
        mine = rows[rows["method"] == method].sort_values("epsilon")
        mark: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linestyle": look.dash}
        axes.errorbar(mine["epsilon"], mine["mse"], yerr=Z * mine["mse_error"], **mark)
