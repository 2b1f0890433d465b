"""Where the time of a step goes: a stacked bar for each configuration."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis import speeds, style
from analysis.machines import where

_COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#F5C710", "#009E73", "#b8b8b8", "#CC79A7", "#D55E00")
_NAMED = 0.07  # share of the widest bar from which a part has room for its share


@style.styled
def profile_figure(parts: pd.DataFrame) -> Figure:
    """A panel for each place of parts that `speeds.profiles` returned, a bar for each engine, law and rows."""
    names = speeds.parts(parts["part"])
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    groups = list(speeds.places(parts))
    tallest = max(rows["step"].nunique() for rows in groups)
    figure, axes = style.panels(len(groups), 1, (9.4, 1.2 + 0.34 * tallest))
    figure.set_dpi(style.RC["savefig.dpi"])  # long labels are wider there than where they would be laid out
    for panel, rows in zip(axes, groups, strict=True):
        _panel(panel, rows, colours)
        panel.set_title(where(rows.iloc[0]))
    handles = [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, colours: dict[str, str]) -> None:
    bars = [bar for _, bar in rows.groupby("step", sort=False)]
    widest = max(bar["seconds"].sum() for bar in bars)
    for height, bar in enumerate(bars):
        left = 0.0
        for _, row in bar.iterrows():
            look: dict[str, Any] = {"color": colours[row["part"]], "edgecolor": "white", "linewidth": 0.8}
            axes.barh([height], [row["seconds"]], left=left, height=0.68, zorder=2, **look)
            if row["seconds"] >= _NAMED * widest:
                place: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "zorder": 3}
                share, ink = f"{100 * row['share']:.0f} %", _ink(colours[row["part"]])
                axes.text(left + row["seconds"] / 2, height, share, color=ink, **place)
            left += row["seconds"]
    axes.set_yticks(range(len(bars)), [bar["name"].iloc[0] for bar in bars], fontsize=8.5)
    axes.set(ylim=(len(bars) - 0.4, -0.6), xlabel="seconds a step")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def _ink(colour: str) -> str:
    red, green, blue = to_rgb(colour)
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.45 else "black"
