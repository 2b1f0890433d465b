"""Parts of the error of one estimate on real models against epsilon: variance, rounding, and the bound on the bias."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from zobench.figures import style, ticks
from zobench.figures.style import DASHED, DOTTED, GREY, SOLID, Look

PANEL = ["model", "trained"]
LOOKS = {  # part, dtype
    ("truncation", "float64"): Look("#0072B2", "o", SOLID),
    ("kernel_truncation", "float64"): Look("#D55E00", "s", DASHED),
    ("rounding", "float32"): Look("#009E73", "^", DOTTED),
    ("rounding", "bfloat16"): Look("#CC79A7", "v", DOTTED),
}
NAMES = {
    ("truncation", "float64"): "bound on MeZO's bias",
    ("kernel_truncation", "float64"): "bound on the kernel's bias",
    ("rounding", "float32"): "rounding of one slope, float32",
    ("rounding", "bfloat16"): "rounding of one slope, bfloat16",
}


@style.styled
def parts_figure(parts: pd.DataFrame) -> Figure:
    """A panel for each model and what is trained, for rows of kind "error-parts": root mean squares over |g|."""
    groups = list(parts.groupby(PANEL, sort=False))
    figure, axes = style.panels(len(groups), 2, 2.9)
    for panel, (place, rows) in zip(axes, groups, strict=True):
        _panel(panel, rows)
        style.title(panel, f"{place[0]}, {place[1]}")
    style.legend(figure, _key())
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    ticks.logarithmic(axes, "x", 5)
    ticks.logarithmic(axes, "y")
    axes.set(xlabel="ε, displacement along u", ylabel="over the norm of the gradient")
    for (part, dtype), look in LOOKS.items():
        mine = rows[(rows["dtype"] == dtype) & (rows[part] > 0)].sort_values("epsilon")
        mark: dict[str, Any] = {"color": look.colour, "marker": look.marker, "linestyle": look.dash}
        if len(mine):
            axes.plot(mine["epsilon"], np.sqrt(mine[part]), **mark)
    exact = rows[rows["dtype"] == "float64"].sort_values("epsilon")
    axes.plot(exact["epsilon"], np.sqrt(exact["error"]), color="black")
    axes.axhline(1.0, color=GREY, linewidth=0.8, zorder=1)


def _key() -> list[Line2D]:
    shown = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dash, label=NAMES[part])
        for part, look in LOOKS.items()
    ]
    deviation = Line2D([], [], color="black", label="error of one estimate, nearly all of it variance")
    return [deviation, *shown, Line2D([], [], color=GREY, linewidth=0.8, label="the norm of the gradient")]
