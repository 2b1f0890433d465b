"""The report on kernels that cost least, and on all ways to less bias."""

import math
from typing import Any

import pandas as pd

from analysis import designs, text
from analysis.figures.design import beyond, design_figure, interval_figure, road, roads_figure
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.tables.design import intervals_table, kernels_table, roads_table

TITLE = "Kernels that cost least"
RATIO = (
    "t is the noise-to-gradient ratio: in the second moment of a central difference, the part that noise of the loss "
    "makes over the part that the gradient makes."
)
CAPTION = (
    "Each order has three panels. The first shows the nodes of the optimal kernels with their probabilities; where "
    "nodes of several t coincide, as at r = 1, wide stems lie behind narrow stems. The second shows the values of "
    "the kernel at these nodes beside the Legendre kernel on [0, 1]; all kernels are odd. The third shows the "
    "second moment V(t) = E[r²K²] + t E[K²] with its lower bound, which holds for every kernel of that order. "
    f"{RATIO}"
)
INTERVAL = (
    "The panels show KerZOO's kernel K while the half-width s of the interval of r shrinks from 1; s falls to the "
    "right, so the axes are reversed. The first panel shows the mean step E[rK], which acts as a hidden schedule "
    "of the learning rate. The second shows E[r³K] / E[rK], the bias of order ε² in units of MeZO's bias. The "
    "third shows the second moment at the same mean step."
)
ROADS = (
    "Each line is a method that lowers the bias at equal loss evaluations. The axis shows its cost in units of the "
    "cost of the central difference at the same t; the value 1 is the central difference itself, whose bias falls "
    f"with ε². A bias of order 3 falls with ε⁴, a bias of order 5 with ε⁶. {RATIO} An arrow gives the least cost "
    "where it lies beyond the frame."
)
ALT = (
    "Optimal kernels of each order: stems show the probabilities and values of their few nodes. Curves show second "
    "moments against the noise-to-gradient ratio, beside Legendre kernels and the lower bound."
)
ALT_ROADS = (
    "Cost of each method that lowers the bias, in units of the cost of the central difference: a line for each "
    "method, with a point for each noise-to-gradient ratio."
)
ALT_INTERVAL = (
    "Mean step, remaining bias and second moment while the interval of r shrinks, for the unchanged kernel and for "
    "the rescaled kernel."
)


def section(results: Results) -> Section:
    """Optimal kernels, roads, and KerZOO's kernel on a shrinking interval."""
    frame = designs.with_ratio(results.of("design").drop_duplicates(["family", "name", "noise_share"], keep="last"))
    roads = designs.with_ratio(results.of("road").drop_duplicates(["name", "noise_share"], keep="last"))
    if frame.empty and roads.empty:
        return missing("design", TITLE, "design")
    shown, tables = [], []
    if (frame["family"].eq("optimal") & frame["order"].gt(designs.PLAIN)).any():
        shown.append(Illustration("design", design_figure(frame), CAPTION, ALT))
        tables.append(kernels_table(frame))
    if len(roads):
        roads = designs.relative(roads)
        shown.append(Illustration("design-roads", roads_figure(roads), ROADS + _not_drawn(roads), ALT_ROADS))
        tables.insert(0, roads_table(roads))
    intervals = frame[frame["scale"].notna()]
    if len(intervals):
        shown.append(Illustration("design-interval", interval_figure(intervals), INTERVAL, ALT_INTERVAL))
        tables.append(intervals_table(intervals))
    return Section("design", TITLE, sentences(frame, roads), shown, tables)


def _not_drawn(roads: pd.DataFrame) -> str:
    """A sentence on the roads that have no point in the frame."""
    names = [f"{road(row.name_, roads)} (from {text.number(row.relative)})" for row in _named(beyond(roads))]
    return f" Beyond it at every t, and not drawn: {text.listed(names)}." if names else ""


def sentences(frame: pd.DataFrame, roads: pd.DataFrame) -> list[str]:
    """Optimal against Legendre for each order, the distance to the bound, the cheapest road, the hidden schedule."""
    best = frame[frame["family"].isin(["optimal", "chebyshev"]) & (frame["order"] > designs.PLAIN)]
    best = best[(best["family"] == "optimal") | (best["t"] == math.inf)]
    lines = []
    for order, rows in best.groupby("order"):
        ratio = rows["second_moment"] / rows["legendre_second_moment"]
        lines.append(
            f"Order {order:g}: the optimal kernel's second moment is {text.number(ratio.min())} to "
            f"{text.number(ratio.max())} of the Legendre kernel's, t = {text.number(rows['t'].min())} to "
            f"{text.number(rows['t'].max())}."
        )
    if len(best):
        off = (best["second_moment"] / best["bound"] - 1).abs().max()
        lines.append(f"All {len(best)} optimal kernels lie on the dual bound, to a relative {text.number(off, 2)}.")
    return [*lines, *_roads(roads), *_schedule(frame)]


def _roads(roads: pd.DataFrame) -> list[str]:
    """The cheapest road of each order at each ratio, of those that look no farther than the central difference."""
    lines: list[str] = []
    if roads.empty:
        return lines
    for order, rows in roads[(roads["order"] > designs.PLAIN) & (roads["reach"] <= 1)].groupby("order"):
        cheapest = rows.loc[rows.groupby("t")["cost"].idxmin()]
        parts = [
            f"{row.name_} ({text.number(row.relative)}) at {designs.ratio_name(row.t)}" for row in _named(cheapest)
        ]
        lines.append(
            f"Cheapest way of order {order:g} within ε, in units of the central difference's cost: "
            f"{text.listed(parts)}."
        )
    return lines


def _named(rows: pd.DataFrame) -> list[Any]:
    """Rows as tuples, with `name_` for the name, which tuples have as a method."""
    return list(rows.rename(columns={"name": "name_"}).itertuples(index=False))


def _schedule(frame: pd.DataFrame) -> list[str]:
    kept = frame[frame["family"] == "shrunk"].sort_values("scale")
    if len(kept) < 2:
        return []
    top, last = kept.loc[kept["m1"].idxmax()], kept.iloc[0]
    return [
        f"KerZOO's kernel kept while the interval shrinks has a mean step of {text.number(kept['m1'].iloc[-1])} at s = "
        f"{text.number(kept['scale'].iloc[-1])}, {text.number(top['m1'])} at s = {text.number(top['scale'])} and "
        f"{text.number(last['m1'])} at s = {text.number(last['scale'])}: a schedule of the learning rate."
    ]
