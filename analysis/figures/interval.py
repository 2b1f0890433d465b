"""A shrinking interval of r: the mean step, and the bias that comes back, measured on what theory predicts."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.statistics import Z
from zobench.figures import style
from zobench.figures.style import DASHED, GREY, SOLID, Look

LOOKS = {"unscaled": Look("#D55E00", "s", SOLID), "rescaled": Look("#0072B2", "o", DASHED)}
NAMES = {"unscaled": "the kernel of [−1, 1]", "rescaled": "the kernel rescaled to [−s, s]"}
PANELS = {"mean step": "mean step over that of C = 1", "bias against MeZO's": "bias over MeZO's"}


@style.styled
def interval_figure(checks: pd.DataFrame) -> Figure:
    """For rows of kind "claim-check" of the part "interval": points with 95 % intervals, lines through predictions."""
    figure, axes = style.panels(len(PANELS), 2, 2.9)
    for panel, (quantity, name) in zip(axes, PANELS.items(), strict=True):
        _panel(panel, checks[checks["quantity"] == quantity])
        panel.set(xlabel="s, half the length of r's interval", ylabel=name)
    key = [
        Line2D([], [], color=look.colour, marker=look.marker, linestyle=look.dash, label=NAMES[name])
        for name, look in LOOKS.items()
    ]
    style.legend(figure, [*key, Line2D([], [], color=GREY, label="lines: theory at the same s")])
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    for method, look in LOOKS.items():
        mine = rows[rows["method"] == method].sort_values("scale")
        axes.plot(mine["scale"], mine["predicted"], color=look.colour, linestyle=look.dash, zorder=1)
        bar: dict[str, Any] = {"yerr": Z * mine["measured_error"], "linestyle": "none", "zorder": 2}
        axes.errorbar(mine["scale"], mine["measured"], color=look.colour, marker=look.marker, **bar)
    axes.set_xlim(1.04, 0.06)
