"""The effect of rounding on a step: the share of weights that move, and the direction of the realised step."""

import textwrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import speeds
from analysis.machines import HERE, where
from zobench.figures import style
from zobench.figures.style import GREY

_VALUES = {"moved": "share of weights that moved", "cosine": "cosine with the intended step"}
COLOUR = "#0072B2"
LONGEST = 74  # characters of a line over both panels


@style.styled
def rounding_figure(motion: pd.DataFrame) -> Figure:
    """For steps that `speeds.motion` returned: share moved and cosine, a band for each place, a line for each rounding.

    Every step is a point, pale where there are several; their median is a full one.
    """
    groups = list(speeds.places(motion))
    lines = sum(1 + rows["name"].nunique() for rows in groups)
    figure, axes = style.panels(len(_VALUES), 2, 0.6 + 0.25 * lines, share_y=True)
    axes[0].set(zorder=1, facecolor="none")  # names of places reach over the other panel
    for panel, (value, name) in zip(axes, _VALUES.items(), strict=True):
        _panel(panel, groups, value)
        panel.set(xlabel=name, xlim=(min(-0.04, 1.1 * motion[value].min()), 1.04))
    style.legend(figure, _key())
    return figure


def title(row: pd.Series) -> str:
    """`smollm2-135m-instruct, bfloat16, rate 1e-06, machine A`."""
    rate = {"": "", "schedule": "scheduled rate"}.get(row["rate"], f"rate {row['rate']}")
    return ", ".join(filter(None, [f"{row['model']}, {row['dtype']}", rate, where(row[HERE])]))


def _panel(axes: Axes, groups: list[pd.DataFrame], value: str) -> None:
    height, places, names = 0, [], []
    first = style.leftmost(axes)
    for rows in groups:
        if first:
            words: dict[str, Any] = {"fontsize": style.SMALL, "weight": "bold", "va": "center"}
            words["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1.0}
            name = axes.text(0.0, height, _lines(title(rows.iloc[0])), transform=axes.get_yaxis_transform(), **words)
            name.set_in_layout(False)
        for name, line in rows.groupby("name", sort=False):
            height += 1
            axes.plot(line[value], [height] * len(line), color=COLOUR, alpha=0.35, markersize=4, **POINT)
            axes.plot([line[value].median()], [height], color=COLOUR, markersize=6, **POINT)
            places.append(height)
            names.append(style.wrapped(str(name)))
        height += 1
    axes.set_yticks(places, names, fontsize=style.SMALL)
    axes.set_ylim(height - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    if first:
        axes.set_ylabel("rounding of weights")


def _lines(words: str) -> str:
    return "\n".join(textwrap.wrap(words, LONGEST)[:2])


POINT: dict[str, Any] = {"marker": "o", "linestyle": "none", "markeredgewidth": 0.0}


def _key() -> list[Line2D]:
    return [
        Line2D([], [], color=GREY, markersize=6, label="median over steps", **POINT),
        Line2D([], [], color=GREY, markersize=4, alpha=0.35, label="one step", **POINT),
    ]
