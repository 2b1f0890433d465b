"""The time of a step by its parts: a stacked bar for each configuration."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis import speeds, text
from analysis.machines import where
from zobench.figures import style

_COLOURS = ("#0072B2", "#56B4E9", "#E69F00", "#F5C710", "#009E73", "#b8b8b8", "#CC79A7", "#D55E00")
_NAMED = 0.07  # share of the widest bar from which a part has room for its share


@style.styled
def profile_figure(parts: pd.DataFrame) -> Figure:
    """A panel for each place of parts that `speeds.profiles` returned, a bar for each engine, law and rows."""
    names = speeds.parts(parts["part"])
    colours = {name: _COLOURS[place % len(_COLOURS)] for place, name in enumerate(names)}
    groups = list(speeds.places(parts))
    figure, axes = style.panels(len(groups), 1, [0.8 + 0.34 * rows["step"].nunique() for rows in groups])
    for panel, rows in zip(axes, groups, strict=True):
        _panel(panel, rows, colours)
        style.title(panel, where(rows.iloc[0]))
    handles = [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
    style.legend(figure, handles)
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
                centred: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": style.SMALL, "zorder": 3}
                share, ink = f"{100 * row['share']:.0f} %", _ink(colours[row["part"]])
                axes.text(left + row["seconds"] / 2, height, share, color=ink, **centred)
            left += row["seconds"]
        if (of_bench := bar["of_bench"].iloc[0]) > speeds.SLOWED:
            note = f" {text.fixed(of_bench, 1)} times the bench"
            axes.text(left, height, note, va="center", fontsize=style.SMALL, color=style.GREY)
    axes.set_yticks(range(len(bars)), [style.wrapped(bar["name"].iloc[0], 36) for bar in bars], fontsize=style.SMALL)
    axes.set(ylim=(len(bars) - 0.4, -0.6), xlabel="seconds a step", ylabel="engine, law, rows")
    axes.set_xlim(0, 1.3 * widest)  # room for a note after the longest bar
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def _ink(colour: str) -> str:
    red, green, blue = to_rgb(colour)
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.45 else "black"
