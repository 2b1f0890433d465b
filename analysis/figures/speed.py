"""Time of one step: a bar for each job, the limit as a line."""

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis import speeds, text
from analysis.machines import where
from zobench.figures import style
from zobench.figures.style import GREY

_LAWS = {"gaussian": "#0072B2", "rademacher": "#E69F00", "coordinate": "#CC79A7"}
_OTHER = "#56B4E9"
_LINE: dict[str, Any] = {"color": "black", "linewidth": 1.2, "linestyle": style.DASHED}


@style.styled
def speed_figure(steps: pd.DataFrame) -> Figure:
    """A panel for each place of jobs that `speeds.steps` returned: medians, quartiles, and the time each bar allows."""
    groups = [rows for rows in speeds.places(steps) if (rows["job"] != speeds.LIMIT).any()]
    figure, axes = style.panels(len(groups), 1, [0.7 + 0.3 * len(rows) for rows in groups])
    for panel, rows in zip(axes, groups, strict=True):
        _panel(panel, rows)
        style.title(panel, where(rows.iloc[0]))
    style.legend(figure, _key(steps))
    return figure


def _panel(axes: Axes, rows: pd.DataFrame) -> None:
    limit, bars = rows[rows["job"] == speeds.LIMIT], rows[rows["job"] != speeds.LIMIT]
    for height, (_, row) in enumerate(bars.iterrows()):
        axes.barh([height], [row["seconds"]], height=0.66, color=_colour(row), zorder=2)
        whiskers = ([row["seconds"] - row["seconds_low"]], [row["seconds_high"] - row["seconds"]])
        axes.errorbar([row["seconds"]], [height], xerr=whiskers, fmt="none", ecolor="black", elinewidth=1.2, zorder=3)
        place: dict[str, Any] = {
            "xytext": (4, 0),
            "textcoords": "offset points",
            "va": "center",
            "fontsize": style.SMALL,
        }
        place["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # the line of the limit may pass here
        axes.annotate(_ratio(row), (row["seconds_high"], height), zorder=5, **place)
    if len(limit):
        axes.axvline(limit["seconds"].iloc[0], zorder=4, **_LINE)
        axes.axvspan(*limit[["seconds_low", "seconds_high"]].iloc[0], color=GREY, alpha=0.25, linewidth=0, zorder=1)
    axes.set_yticks(range(len(bars)), [style.wrapped(job, 28) for job in bars["job"]], fontsize=style.SMALL)
    axes.set(
        ylim=(len(bars) - 0.45, -0.6),
        xlabel="seconds a step",
        ylabel="engine, law, rows",
        xlim=(0, 1.38 * rows["seconds_high"].max()),
    )
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def _ratio(row: pd.Series) -> str:
    return "" if math.isnan(row["of_limit"]) else f"{text.fixed(row['of_limit'])} times the limit"


def _colour(row: pd.Series) -> str:
    return _LAWS.get(row["law"], _OTHER) if row["law"] else "#a6a6a6"


def _key(steps: pd.DataFrame) -> list[Line2D | Patch]:
    laws = {
        row["law"]: Patch(facecolor=_colour(row), label=f"{row['law']} directions")
        for _, row in steps.iterrows()
        if row["law"]
    }
    quartiles = Line2D([], [], color="black", linewidth=1.2, label="quartiles of repetitions")
    limit = Line2D([], [], label="two bare forwards: the limit", **_LINE)
    return [*laws.values(), quartiles, *([limit] if (steps["job"] == speeds.LIMIT).any() else [])]
