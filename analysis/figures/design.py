"""Kernels that cost least: their nodes, how often each is played, their values, and what they cost."""

import math
import re
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import designs, text
from zobench.figures import style, ticks
from zobench.figures.style import DASHED, DOTTED, GREY, Look

LEGENDRE = Look("#D55E00", "s", DASHED)
CHEBYSHEV = Look("#882255", "p", DOTTED)
OPTIMAL: dict[str, Any] = {"color": "black", "marker": "o", "markerfacecolor": "white", "linestyle": "none"}
STEMS = (Look("#56B4E9", "o", "-"), Look("#0072B2", "D", "-"), Look("#1b1b1b", "^", "-"))


@style.styled
def design_figure(frame: pd.DataFrame) -> Figure:
    """A column for each order from 3: probabilities at the nodes, kernel values there, second moments over t.

    `frame` has rows of kind "design" with their `t`.
    """
    orders = sorted(
        order for order in frame.loc[frame["family"] == "optimal", "order"].unique() if order > designs.PLAIN
    )
    figure, axes = style.panels(3 * len(orders), len(orders), 2.2)
    stems = _stems(frame)
    for place, order in enumerate(orders):
        rows = frame[frame["order"] == order]
        column = axes[place :: len(orders)] if len(orders) > 1 else axes
        _probabilities(column[0], rows, stems)
        style.title(column[0], f"order {order:g}")
        _values(column[1], rows, stems)
        _costs(column[2], rows, frame[frame["order"] == designs.PLAIN])
    style.legend(figure, _key(stems))
    return figure


def _stems(frame: pd.DataFrame) -> dict[float, Look]:
    """The least, the middle and the largest ratio that have kernels of their own; at infinity Chebyshev's."""
    kept = sorted(frame.loc[frame["family"] == "optimal", "t"].unique())
    if (frame["family"].eq("chebyshev") & frame["t"].eq(math.inf)).any():
        kept.append(math.inf)
    chosen = sorted({kept[0], kept[len(kept) // 2], kept[-1]})
    return dict(zip(chosen, STEMS, strict=False))


def _kernel(rows: pd.DataFrame, t: float) -> list[tuple[float, float, float]]:
    family = "chebyshev" if t == math.inf else "optimal"
    found = rows[(rows["family"] == family) & (rows["t"] == t)]
    return designs.nodes(found.iloc[0]) if len(found) else []


def _stemmed(axes: Axes, rows: pd.DataFrame, stems: dict[float, Look], value: int) -> None:
    """Probability (1) or value (2) at every node; wide stems lie behind narrow ones where nodes coincide."""
    for place, (t, look) in enumerate(stems.items()):
        drawn: dict[str, Any] = {"color": look.colour, "zorder": 2 + place, "clip_on": False, "solid_capstyle": "butt"}
        for node in _kernel(rows, t):
            axes.plot([node[0]] * 2, [0, node[value]], linewidth=1.1 + 1.3 * (len(stems) - 1 - place), **drawn)
            axes.plot([node[0]], [node[value]], marker=look.marker, markersize=6.5 - 1.3 * place, **drawn)
    axes.set(xlim=(0, 1.05), xlabel="node |r|, in units of ε")


def _probabilities(axes: Axes, rows: pd.DataFrame, stems: dict[float, Look]) -> None:
    _stemmed(axes, rows, stems, 1)
    axes.set(ylim=(0, 1.08), ylabel="probability of a node")


def _values(axes: Axes, rows: pd.DataFrame, stems: dict[float, Look]) -> None:
    for _, row in rows[rows["family"] == "legendre"].head(1).iterrows():
        curve = pd.Series(row["values"], index=row["nodes"], dtype=float).loc[0:]
        axes.plot(curve.index, curve, color=LEGENDRE.colour, linestyle=LEGENDRE.dash, zorder=1)
    axes.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
    _stemmed(axes, rows, stems, 2)
    axes.set(ylabel="kernel K(|r|)")


def _costs(axes: Axes, rows: pd.DataFrame, plain: pd.DataFrame) -> None:
    """Second moments over t on logarithmic axes: points of the optimal kernels on the bound that none can be below."""
    finite = rows[(rows["t"] > 0) & (rows["t"] < math.inf)].sort_values("t")
    best = finite[finite["family"] == "optimal"]
    axes.plot(best["t"], best["bound"], color="black", linewidth=1.2)
    axes.plot(best["t"], best["second_moment"], **OPTIMAL, zorder=3)
    for family, look in (("legendre", LEGENDRE), ("chebyshev", CHEBYSHEV)):
        own = finite[finite["family"] == family]
        style_: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "marker": look.marker, "markersize": 4}
        axes.plot(own["t"], own["second_moment"], **style_)
    central = plain[(plain["family"] == "optimal") & (plain["t"] > 0) & (plain["t"] < math.inf)].sort_values("t")
    axes.plot(central["t"], central["second_moment"], color=GREY, linewidth=1.0, linestyle=(0, (6, 1.6, 1.2, 1.6)))
    axes.set(xlabel="noise-to-gradient ratio t", ylabel="second moment V(t)")
    for which in ("x", "y"):
        ticks.logarithmic(axes, which, 5)


def _key(stems: dict[float, Look]) -> list[Line2D]:
    played = [
        Line2D([], [], color=look.colour, marker=look.marker, label=f"optimal, {designs.ratio_name(t)}{_limit(t)}")
        for t, look in stems.items()
    ]
    lines = [
        Line2D(
            [], [], linewidth=1.2, label="V of the optimal kernel, on its dual bound", **(OPTIMAL | {"linestyle": "-"})
        ),
        *(
            Line2D([], [], color=look.colour, linestyle=look.dash, marker=look.marker, label=name)
            for name, look in (("Legendre (KerZOO)", LEGENDRE), ("Chebyshev at every t", CHEBYSHEV))
        ),
        Line2D([], [], color=GREY, linestyle=(0, (6, 1.6, 1.2, 1.6)), label="order 1: central difference"),
    ]
    return [*played, *lines]


def _limit(t: float) -> str:
    return " (Chebyshev)" if t == math.inf else ""


@style.styled
def interval_figure(frame: pd.DataFrame) -> Figure:
    """KerZOO's kernel on a shrinking interval [-s, s]: mean step, bias left and second moment, as written and rescaled.

    `frame` has the rows of kind "design" with a `scale`.
    """
    figure, axes = style.panels(3, 3, 2.7)
    names = {"shrunk": "kernel of [−1, 1] kept", "rescaled": "kernel rescaled to [−s, s]"}
    looks = {"shrunk": LEGENDRE, "rescaled": replace(STEMS[1], dash="-")}
    for family, look in looks.items():
        rows = frame[frame["family"] == family].sort_values("scale")
        drawn: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "marker": look.marker, "clip_on": False}
        values = (rows["m1"], rows["m3"] / rows["m1"], rows["second_moment"] / rows["m1"] ** 2)
        for panel, value in zip(axes, values, strict=True):
            panel.plot(rows["scale"], value, label=names[family], zorder=3, **drawn)
    for panel, (title, label) in zip(axes, SHRINKING.items(), strict=True):
        style.title(panel, title)
        panel.set(xlabel="half-width s of the interval;\nreversed: it shrinks to the right", ylabel=label)
        panel.set(xlim=(1.04, 0.0), ylim=(0, None))
    style.legend(figure, axes[0].get_legend_handles_labels()[0])
    return figure


SHRINKING = {
    "mean step": "E[rK]",
    "bias left, over mezo's": "E[r³K] / E[rK]",
    "second moment": "E[r²K²] / E[rK]²",
}


@style.styled
def roads_figure(frame: pd.DataFrame) -> Figure:
    """Every road to less bias as a line: its cost in units of the central difference's, a point for each ratio t.

    An arrow has the least cost beyond the frame; roads of `beyond` have no line.
    """
    ratios = sorted(frame["t"].unique())
    kept = frame[~frame["name"].isin(beyond(frame)["name"])].sort_values("order", kind="stable")
    roads = list(dict.fromkeys(kept["name"]))
    figure, (axes,) = style.panels(1, 1, 0.55 + 0.25 * len(roads))
    marks = {t: _mark(place, len(ratios)) for place, t in enumerate(ratios)}
    for height, name in enumerate(roads):
        rows = frame[frame["name"] == name]
        for row in rows[rows["relative"] <= EDGE].itertuples():
            axes.plot([row.relative], [height], linestyle="none", clip_on=False, **marks[row.t])
        outside = rows[rows["relative"] > EDGE]
        if len(outside):
            words = f"{designs.ratio_name(outside['t'].min())}: {text.number(outside['relative'].min())} ▸"
            axes.text(EDGE * 1.15, height, words, va="center", ha="left", fontsize=style.SMALL, color=GREY)
    axes.axvline(1.0, color="black", linewidth=1.0, zorder=1)
    axes.set_yticks(range(len(roads)), [road(name, frame) for name in roads])
    axes.set(xlim=(0.85, EDGE), ylim=(len(roads) - 0.4, -0.6))
    axes.set(xlabel="cost over that of the central difference, at the same t", ylabel="road")
    ticks.logarithmic(axes, "x")
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100])
    axes.tick_params(axis="y", length=0)
    handles = [Line2D([], [], linestyle="none", label=designs.ratio_name(t), **mark) for t, mark in marks.items()]
    style.legend(figure, handles, "noise-to-gradient ratio")
    return figure


EDGE = 100.0


def beyond(frame: pd.DataFrame) -> pd.DataFrame:
    """The least cost of each road that no ratio brings into the frame."""
    least = frame.groupby("name", sort=False, as_index=False)["relative"].min()
    return least[least["relative"] > EDGE]


def road(name: str, frame: pd.DataFrame) -> str:
    """A road in words, with the order of its bias: `order 3: Legendre kernel`, `order 1: central at ε/4`."""
    order = frame.loc[frame["name"] == name, "order"].iloc[0]
    shortened = re.sub(r"^(\w)(\w*)\(\d+(, t)?\)$", lambda found: f"{found[1].upper()}{found[2]} kernel", name)
    shortened = re.sub(r"2\^-(\d+)", lambda found: f"ε/{2 ** int(found[1]):,}", shortened)
    shortened = re.sub(r"^Richardson (.*)$", r"Richardson, nodes \1", shortened)
    shortened = re.sub(r"^least noise, (\d+)$", r"least noise, \1 evaluations", shortened)
    shortened = re.sub(r"^telescoping (\d+)", r"telescoping, depth \1", shortened).replace("Optimal", "optimal")
    return f"order {order:g}: {shortened}" if order == order else shortened


def _mark(place: int, count: int) -> dict[str, Any]:
    return style.shade(place, count) | {"markersize": 5.5}
