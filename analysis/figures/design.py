"""Kernels that cost least: their nodes, how often each is played, their values, and what they cost."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import designs, style, text
from analysis.style import DASHED, DOTTED, GREY, Look

LEGENDRE = Look("#D55E00", "s", DASHED)
CHEBYSHEV = Look("#882255", "p", DOTTED)
OPTIMAL: dict[str, Any] = {"color": "black", "marker": "o", "markerfacecolor": "white", "linestyle": "none"}
SIDE = 0.015
STEMS = (Look("#56B4E9", "o", "-"), Look("#0072B2", "D", "-"), Look("#1b1b1b", "^", "-"))


@style.styled
def design_figure(frame: pd.DataFrame) -> Figure:
    """A column for each order from 3: probabilities at the nodes, kernel values there, second moments over t.

    `frame` has rows of kind "design" with their `t`.
    """
    orders = sorted(
        order for order in frame.loc[frame["family"] == "optimal", "order"].unique() if order > designs.PLAIN
    )
    figure, axes = style.panels(3 * len(orders), len(orders), (4.2, 3.0))
    stems = _stems(frame)
    for place, order in enumerate(orders):
        rows = frame[frame["order"] == order]
        column = axes[place :: len(orders)] if len(orders) > 1 else axes
        _probabilities(column[0], rows, stems)
        column[0].set_title(f"order {order:g}")
        _values(column[1], rows, stems)
        _costs(column[2], rows, frame[frame["order"] == designs.PLAIN])
    figure.legend(handles=_key(stems), loc="outside lower center", ncols=4)
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


def _shifted(rows: pd.DataFrame, stems: dict[float, Look]) -> Iterator[tuple[float, float, float, Look]]:
    """Place, probability and value of every node; stems at r = 1, where all kernels have one, stand side by side."""
    middle = (len(stems) - 1) / 2
    for place, (t, look) in enumerate(stems.items()):
        for r, p, k in _kernel(rows, t):
            yield r + (SIDE * (place - middle) if r > 1 - SIDE else 0.0), p, k, look


def _probabilities(axes: Axes, rows: pd.DataFrame, stems: dict[float, Look]) -> None:
    for r, p, _, look in _shifted(rows, stems):
        axes.plot([r, r], [0, p], color=look.colour, linewidth=1.4)
        axes.plot([r], [p], marker=look.marker, color=look.colour)
    axes.set(xlim=(0, 1.05), ylim=(0, 1.08), xlabel="node |r|", ylabel="probability")


def _values(axes: Axes, rows: pd.DataFrame, stems: dict[float, Look]) -> None:
    for _, row in rows[rows["family"] == "legendre"].head(1).iterrows():
        curve = pd.Series(row["values"], index=row["nodes"], dtype=float).loc[0:]
        axes.plot(curve.index, curve, color=LEGENDRE.colour, linestyle=LEGENDRE.dash, zorder=1)
    for r, _, k, look in _shifted(rows, stems):
        axes.plot([r, r], [0, k], color=look.colour, linewidth=1.4)
        axes.plot([r], [k], marker=look.marker, color=look.colour)
    axes.axhline(0.0, color=GREY, linewidth=0.8, zorder=1)
    axes.set(xlim=(0, 1.05), xlabel="node |r|", ylabel="kernel K(|r|)")


def _costs(axes: Axes, rows: pd.DataFrame, plain: pd.DataFrame) -> None:
    """Second moments over t on logarithmic axes: points of the optimal kernels on the bound that none can be below."""
    finite = rows[(rows["t"] > 0) & (rows["t"] < math.inf)].sort_values("t")
    best = finite[finite["family"] == "optimal"]
    axes.plot(best["t"], best["bound"], color="black", linewidth=1.2)
    axes.plot(best["t"], best["second_moment"], **OPTIMAL, zorder=3)
    for family, look in (("legendre", LEGENDRE), ("chebyshev", CHEBYSHEV)):
        own = finite[finite["family"] == family]
        style_ = {"color": look.colour, "linestyle": look.dash, "marker": look.marker, "markersize": 4}
        axes.plot(own["t"], own["second_moment"], **style_)
    central = plain[(plain["family"] == "optimal") & (plain["t"] > 0) & (plain["t"] < math.inf)].sort_values("t")
    axes.plot(central["t"], central["second_moment"], color=GREY, linewidth=1.0, linestyle=(0, (6, 1.6, 1.2, 1.6)))
    axes.set(xscale="log", yscale="log", xlabel="noise-to-gradient ratio t", ylabel="second moment V(t)")


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
    figure, axes = style.panels(3, 3, (3.9, 3.4))
    names = {"shrunk": "kernel of [−1, 1] kept", "rescaled": "kernel rescaled to [−s, s]"}
    looks = {"shrunk": LEGENDRE, "rescaled": replace(STEMS[1], dash="-")}
    for family, look in looks.items():
        rows = frame[frame["family"] == family].sort_values("scale")
        drawn: dict[str, Any] = {"color": look.colour, "linestyle": look.dash, "marker": look.marker}
        values = (rows["m1"], rows["m3"] / rows["m1"], rows["second_moment"] / rows["m1"] ** 2)
        for panel, value in zip(axes, values, strict=True):
            panel.plot(rows["scale"], value, label=names[family], **drawn)
    labels = ("mean step E[rK]", "bias left, E[r³K] / E[rK]", "second moment E[r²K²] / E[rK]²")
    for panel, label in zip(axes, labels, strict=True):
        panel.set(xlabel="half-width s of the interval", title=label, xlim=(1.04, 0.0), ylim=(0, None))
        panel.set_ylim(-0.02 * panel.get_ylim()[1], panel.get_ylim()[1])
    handles, words = axes[0].get_legend_handles_labels()
    figure.legend(handles, words, loc="outside lower center", ncols=2)
    return figure


@style.styled
def roads_figure(frame: pd.DataFrame) -> Figure:
    """Every road to less bias as a line: its cost in units of the central difference's, a point for each ratio t.

    What lies beyond the frame is an arrow with its least value.
    """
    ratios = sorted(frame["t"].unique())
    roads = list(dict.fromkeys(frame.sort_values("order", kind="stable")["name"]))
    figure, (axes,) = style.panels(1, 1, (7.4, 1.2 + 0.26 * len(roads)))
    marks = {t: _mark(place, len(ratios)) for place, t in enumerate(ratios)}
    for height, name in enumerate(roads):
        rows = frame[frame["name"] == name]
        for row in rows[rows["relative"] <= EDGE].itertuples():
            axes.plot([row.relative], [height], linestyle="none", **marks[row.t])
        beyond = rows[rows["relative"] > EDGE]
        if len(beyond):
            words = f"from {text.number(beyond['relative'].min())} ▸"
            axes.text(EDGE * 1.12, height, words, va="center", ha="left", fontsize=8, color=GREY)
    axes.axvline(1.0, color="black", linewidth=1.0, zorder=1)
    axes.set_yticks(range(len(roads)), [_road(name, frame) for name in roads])
    axes.set(
        xscale="log",
        xlim=(0.85, EDGE),
        ylim=(len(roads) - 0.4, -0.6),
        xlabel="cost over that of the central difference",
    )
    axes.tick_params(axis="y", length=0)
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
    axes.set_xticks([], minor=True)
    handles = [Line2D([], [], linestyle="none", label=designs.ratio_name(t), **mark) for t, mark in marks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    return figure


EDGE = 100.0


def _road(name: str, frame: pd.DataFrame) -> str:
    order = frame.loc[frame["name"] == name, "order"].iloc[0]
    shown = f"order {order:g}: " if order == order else ""
    return shown + re.sub(r"2\^-(\d+)", r"$2^{-\1}$", name)


def _mark(place: int, count: int) -> dict[str, Any]:
    return style.shade(place, count) | {"markersize": 5.5}
