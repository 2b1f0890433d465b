"""The report on kernels that cost least, and on all roads to less bias."""

import math

import pandas as pd

from analysis import designs, text
from analysis.figures.design import design_figure, interval_figure, roads_figure
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.tables.design import intervals_table, kernels_table, roads_table

TITLE = "Kernels that cost least"
CAPTION = (
    "For each order: the nodes of the optimal kernels with their probabilities (stems, a little apart at r = 1), the "
    "kernel's values there beside the Legendre kernel on [0, 1] (all are odd), and the second moment V(t) = "
    "E[r²K²] + t E[K²] over the noise-to-gradient ratio, with the dual bound that no kernel of that order is below."
)
INTERVAL = (
    "KerZOO's kernel while the interval of r shrinks from [−1, 1] to the right: the mean step, a hidden schedule of "
    "the learning rate; the bias of order ε² in units of MeZO's; the second moment at the same mean step."
)
ROADS = (
    "Roads to less bias at equal loss evaluations: cost in units of the central difference's at the same "
    "noise-to-gradient ratio t. 1 is the plain central difference, whose bias falls with ε²."
)


def section(results: Results) -> Section:
    """Optimal kernels, roads, and KerZOO's kernel on a shrinking interval."""
    frame = designs.with_ratio(results.of("design").drop_duplicates(["family", "name", "noise_share"], keep="last"))
    roads = designs.with_ratio(results.of("road").drop_duplicates(["name", "noise_share"], keep="last"))
    if frame.empty and roads.empty:
        return missing("design", TITLE, "design")
    shown, tables = [], []
    if (frame["family"].eq("optimal") & frame["order"].gt(designs.PLAIN)).any():
        alt = "Nodes, probabilities, values and second moments of optimal kernels"
        shown.append(Illustration("design", design_figure(frame), CAPTION, alt))
        tables.append(kernels_table(frame))
    if len(roads):
        roads = designs.relative(roads)
        alt = "Cost of every road to less bias over that of the central difference"
        shown.append(Illustration("design-roads", roads_figure(roads), ROADS, alt))
        tables.insert(0, roads_table(roads))
    intervals = frame[frame["scale"].notna()]
    if len(intervals):
        alt = "Mean step, bias left and second moment while the interval shrinks"
        shown.append(Illustration("design-interval", interval_figure(intervals), INTERVAL, alt))
        tables.append(intervals_table(intervals))
    return Section("design", TITLE, sentences(frame, roads), shown, tables)


def sentences(frame: pd.DataFrame, roads: pd.DataFrame) -> list[str]:
    """Optimal against Legendre for each order, the distance to the bound, the cheapest road, the hidden schedule."""
    best = frame[frame["family"].isin(["optimal", "chebyshev"]) & (frame["order"] > designs.PLAIN)]
    best = best[(best["family"] == "optimal") | (best["t"] == math.inf)]
    found = []
    for order, rows in best.groupby("order"):
        ratio = rows["second_moment"] / rows["legendre_second_moment"]
        found.append(
            f"Order {order:g}: the optimal kernel's second moment is {text.number(ratio.min())} to "
            f"{text.number(ratio.max())} of the Legendre kernel's, t = {text.number(rows['t'].min())} to "
            f"{text.number(rows['t'].max())}."
        )
    if len(best):
        off = (best["second_moment"] / best["bound"] - 1).abs().max()
        found.append(f"All {len(best)} optimal kernels lie on the dual bound, to a relative {text.number(off, 2)}.")
    return [*found, *_roads(roads), *_schedule(frame)]


def _roads(roads: pd.DataFrame) -> list[str]:
    """The cheapest road of each order at each ratio, of those that look no farther than the central difference."""
    found: list[str] = []
    if roads.empty:
        return found
    for order, rows in roads[(roads["order"] > designs.PLAIN) & (roads["reach"] <= 1)].groupby("order"):
        cheapest = rows.loc[rows.groupby("t")["cost"].idxmin()]
        parts = [
            f"{row.name_} ({text.number(row.relative)}) at {designs.ratio_name(row.t)}" for row in _named(cheapest)
        ]
        found.append(
            f"Cheapest road of order {order:g} within ε, in units of the central difference's cost: "
            f"{text.listed(parts)}."
        )
    return found


def _named(rows: pd.DataFrame) -> list[tuple[str, float, float]]:
    return list(rows.rename(columns={"name": "name_"})[["name_", "relative", "t"]].itertuples(index=False))


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
