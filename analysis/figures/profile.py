"""The shares of a step that its parts take: a stacked bar for each configuration."""

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
_NAMED = 0.04  # share of a bar from which a part has room for its number


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
    for height, bar in enumerate(bars):
        left = 0.0
        for _, row in bar.iterrows():
            look: dict[str, Any] = {"color": colours[row["part"]], "edgecolor": "white", "linewidth": 0.8}
            axes.barh([height], [100 * row["share"]], left=left, height=0.68, zorder=2, **look)
            if row["share"] >= _NAMED:
                centred: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": style.SMALL, "zorder": 3}
                share, ink = f"{100 * row['share']:.0f}", _ink(colours[row["part"]])
                axes.text(left + 50 * row["share"], height, share, color=ink, **centred)
            left += 100 * row["share"]
        note = f" {text.number(bar['seconds'].sum(), 2)} s a step"
        if (of_bench := bar["of_bench"].iloc[0]) > speeds.SLOWED:
            note += f", {text.fixed(of_bench, 1)} times the bench"
        axes.text(left, height, note, va="center", fontsize=style.SMALL, color=style.GREY)
    axes.set_yticks(range(len(bars)), [style.wrapped(bar["name"].iloc[0], 36) for bar in bars], fontsize=style.SMALL)
    axes.set(ylim=(len(bars) - 0.4, -0.6), xlabel="share of the step, %", ylabel="engine, law, rows")
    axes.set_xlim(0, 165)  # room for the note after a bar
    axes.set_xticks(range(0, 101, 20))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def _ink(colour: str) -> str:
    red, green, blue = to_rgb(colour)
    return "white" if 0.3 * red + 0.59 * green + 0.11 * blue < 0.45 else "black"
