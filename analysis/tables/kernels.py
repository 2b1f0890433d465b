"""Moments of the kernels, and what they cost in variance."""

import pandas as pd

from analysis import text
from analysis.figures.kernels import curve, is_misprint, uphill_share
from analysis.tables.table import Table, table


def kernels_table(frame: pd.DataFrame) -> Table:
    """One row for each kernel; E[rK] has to be its constant, E[r^3 K] has to be 0 from order 3 on."""
    rows = []
    for _, row in frame.iterrows():
        moments = row["moments"] if isinstance(row["moments"], dict) else {}
        rows.append(
            {
                "kernel": row["name"],
                "order": text.number(row["order"]),
                "constant": text.number(row["constant"]),
                "E[rK]": text.number(row["first_moment"], 5) + (" !" if is_misprint(row) else ""),
                "E[r³K]": text.fixed(float(moments.get("3", "nan")), 4),
                "E[r⁵K]": text.fixed(float(moments.get("5", "nan")), 4),
                "E[r²K²]": text.number(row["second_moment_r2k2"], 5),
                "E[K²]": text.number(row["second_moment_k2"], 5),
                "uphill": f"{100 * uphill_share(*curve(row)):.1f} %",
                "note": row["note"] if isinstance(row["note"], str) else "",
            }
        )
    note = (
        "r uniform on [−1, 1]. E[r²K²]: second moment of the estimate relative to r = K = 1; E[K²]: the "
        "same for the variance from "
        "loss noise; uphill: share of draws with rK < 0; ! E[rK] is not the constant."
    )
    return table(rows, "Kernels", note)
