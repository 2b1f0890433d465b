"""Kernels that cost least, KerZOO's on a shrinking interval, and all roads to less bias at equal evaluations."""

import pandas as pd

from analysis import designs, text
from analysis.tables.table import Table, table


def roads_table(frame: pd.DataFrame) -> Table:
    """One row for each road, with its cost at every ratio; `frame` has rows of kind "road" with `t` and `relative`."""
    rows = []
    for name, road in frame.groupby("name", sort=False):
        changing = road["noise_second_moment"].round(12).nunique() > 1
        first = road.iloc[0]
        row = {"road": str(name), "order": "all" if pd.isna(first["order"]) else f"{first['order']:g}"}
        row |= {"evaluations": f"{first['evaluations']:g}", "reach": f"{text.number(first['reach'])} ε"}
        for column, title in TITLES.items():
            row[title] = "with t" if changing and column != "m3" else text.number(first[column])
        for at in road.sort_values("t").itertuples():
            row[f"cost at {designs.ratio_name(at.t)}"] = f"{text.number(at.cost)} ({text.number(at.relative)})"
        rows.append(row)
    note = (
        "Cost: (E[(Σwr)²] + 2t E[Σw²]) times evaluations / 2, the second moment at equal loss evaluations of as many "
        "directions as they pay; in brackets in units of the central difference's. m₃ and m₅ multiply the bias of "
        "order ε² and ε⁴. A telescoping road of depth k has the bias of the central difference at ε / 2ᵏ."
    )
    return table(rows, "Ways to less bias at equal loss evaluations", note)


TITLES = {
    "slope_second_moment": "E[(Σwr)²]",
    "noise_second_moment": "E[Σw²]",
    "m3": "m₃",
    "m5": "m₅",
}


def intervals_table(frame: pd.DataFrame) -> Table:
    """KerZOO's kernel on shrinking intervals; `frame` has the rows of kind "design" with a `scale`."""
    rows = [
        {
            "kernel": {"shrunk": "kept", "rescaled": "rescaled"}[row.family],
            "s": text.number(row.scale),
            "E[rK]": text.number(row.m1, 4),
            "E[r³K] / E[rK]": text.fixed(row.m3 / row.m1, 4),
            "E[r²K²] / E[rK]²": text.number(row.second_moment / row.m1**2, 4),
        }
        for row in frame.sort_values(["family", "scale"], ascending=False).itertuples()
    ]
    note = "r uniform on [−s, s] under the kernel of [−1, 1] (kept), or under the one rescaled to [−s, s]."
    return table(rows, "KerZOO's kernel on a shrinking interval", note)


def kernels_table(frame: pd.DataFrame) -> Table:
    """Every kernel on finitely many nodes beside the bound and the Legendre kernel of its order."""
    rows = [
        {
            "kernel": row["name"],
            "t": text.number(row["t"]),
            "V": text.number(row["second_moment"], 5),
            "bound": text.number(row["bound"], 5),
            "Legendre": text.number(row["legendre_second_moment"], 5),
            "V / Legendre": text.fixed(row["second_moment"] / row["legendre_second_moment"], 3),
            "|r| (probability): K": ", ".join(f"{r:.4f} ({p:.4f}): {k:+.3f}" for r, p, k in designs.nodes(row)),
        }
        for _, row in frame.iterrows()
        if designs.nodes(row)
    ]
    note = "V: E[r²K²] + t E[K²], at t = ∞ E[K²]; bound: what no kernel of that order on [−1, 1] is below."
    return table(rows, "Kernels on finitely many nodes", note, long=True)
