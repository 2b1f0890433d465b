"""The parts of the error of one estimate on real models."""

import math

import pandas as pd

from analysis import text
from analysis.tables.table import Table, table

NOTE = (
    "Root mean squares over the norm of the gradient, in percent. MeZO's and the kernel's bias are upper bounds; along "
    "∇f is MeZO's bias along the gradient, ± its standard error over lines. Deviation is that of one estimate, in "
    "norms of the gradient. Share is the largest part of its squared error that is bias: what any correction of bias "
    "could remove."
)


def parts_table(parts: pd.DataFrame) -> Table:
    """Bias, rounding and deviation of each model, dtype and epsilon."""
    rows = [
        {
            "model": str(row["model"]),
            "trained": str(row["trained"]),
            "dtype": str(row["dtype"]),
            "ε": text.number(row["epsilon"]),
            "MeZO's bias ≤": _root(row["truncation"]),
            "along ∇f": f"{_percent(row['along_gradient'])} ± {_percent(row['along_gradient_error'])}",
            "the kernel's ≤": _root(row["kernel_truncation"]),
            "rounding": _root(row["rounding"]) if row["rounding"] > 0 else text.NONE,
            "deviation": text.number(math.sqrt(row["error"])),
            "share": text.number(row["removable"], 2),
        }
        for _, row in parts.sort_values(["model", "trained", "dtype", "epsilon"]).iterrows()
    ]
    return table(rows, "Parts of the error of one estimate", NOTE, long=True)


def _root(square: float) -> str:
    return text.NONE if pd.isna(square) else _percent(math.sqrt(square))


def _percent(share: float) -> str:
    return text.number(100 * share, 2)
