"""What rounding leaves of a step: the share of weights that move, and the direction in which they do."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from analysis import speeds, style, text
from analysis.machines import HERE, where
from analysis.style import Look

_VALUES = {"moved": "share of weights that moved", "cosine": "cosine with the intended step"}


@style.styled
def rounding_figure(motion: pd.DataFrame) -> Figure:
    """For steps that `speeds.motion` returned: share moved and cosine against the step, a pair of panels a place."""
    groups = list(speeds.places(motion))
    figure, axes = style.panels(2 * len(groups), 2, (5.2, 3.5))
    looks = style.sequence(motion["name"])
    for place, rows in enumerate(groups):
        for panel, value in zip(axes[2 * place : 2 * place + 2], _VALUES, strict=True):
            _panel(panel, rows, value, looks)
            panel.set_title(title(rows.iloc[0], "\n"))
    handles = [_line(look, name) for name, look in looks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 3))
    return figure


def title(row: pd.Series, between: str = ", ") -> str:
    """`smollm2-135m-instruct, bfloat16, rate 1e-06, machine A`, in two lines where a newline is to be between."""
    rate = {"": "", "schedule": "scheduled rate"}.get(row["rate"], f"rate {row['rate']}")
    rest = ", ".join(filter(None, [rate, where(row[HERE])]))
    return between.join(filter(None, [f"{row['model']}, {row['dtype']}", rest]))


def _panel(axes: Axes, rows: pd.DataFrame, value: str, looks: dict[str, Look]) -> None:
    for name, line in rows.groupby("name", sort=False):
        look = looks[str(name)]
        every = max(1, len(line) // 12)
        mark: dict[str, Any] = {"marker": look.marker, "markevery": every, "markersize": 4.5}
        axes.plot(line["step"], line[value], color=look.colour, linestyle=look.dash, **mark)
    known = rows[value].dropna()
    if value == "moved" and len(known) and known.min() > 0 and known.max() > 10 * known.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda height, _: text.power(height)))
    else:
        axes.set_ylim(min(-0.03, 1.1 * known.min() if len(known) else 0.0), 1.05)
    axes.set(xlabel="step", ylabel=_VALUES[value])


def _line(look: Look, name: str) -> Line2D:
    return Line2D([], [], color=look.colour, linestyle=look.dash, marker=look.marker, label=name)
