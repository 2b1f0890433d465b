"""Epsilon that chooses itself, cell by cell."""

import math

import pandas as pd

from analysis import text
from analysis.figures.epsilon import WITHIN
from analysis.tables.table import Table, table


def cells(frame: pd.DataFrame) -> pd.DataFrame:
    """One row for each cell, the last written; a null ratio, an excess that was not finite, counts as infinite."""
    last = frame.drop_duplicates(["problem", "dtype", "noise"], keep="last")
    known = {"ratio": "auto_epsilon", "worst_ratio": "auto_epsilon", "fixed_ratio": "fixed_epsilon"}
    return last.assign(
        **{name: last[name].mask(last[name].isna() & last[by].notna(), math.inf) for name, by in known.items()}
    )


def epsilon_table(frame: pd.DataFrame) -> Table:
    """Every cell: best, chosen and fixed epsilon, and their excess over the best."""
    rows = [
        {
            "problem": cell.problem,
            "values in": cell.dtype,
            "noise": text.number(cell.noise),
            "best ε": text.number(cell.best_epsilon, 2),
            "least excess": text.number(_root(cell.best_excess, cell.slope_square)),
            "chosen ε": text.number(cell.auto_epsilon, 2),
            "chosen / best": _marked(cell.ratio),
            "worst choice": _marked(cell.worst_ratio),
            "fixed / best": _marked(cell.fixed_ratio),
            "evaluations": f"{cell.evaluations:.0f}" if cell.evaluations == cell.evaluations else text.NONE,
        }
        for cell in frame.itertuples()
    ]
    note = (
        "Excess: mean of (coefficient − D₁)² over many lines, D₁ the exact directional derivative; least excess: the "
        "root of its least value on the grid, over the root mean square of D₁. Chosen / best: the median choice's "
        f"excess over the least; ! beyond a factor {WITHIN:g}. Noise: standard deviation of one evaluation over "
        "|f(x)|, before values are rounded. Evaluations: loss evaluations of one choice."
    )
    return table(rows, "Epsilon that chooses itself, every cell", note)


def _root(excess: float, slope_square: float) -> float:
    return math.sqrt(excess / slope_square) if slope_square > 0 else math.nan


def _marked(ratio: float) -> str:
    return text.number(ratio) + (" !" if ratio > WITHIN else "")


def shares_table(frame: pd.DataFrame) -> Table:
    """Cells within the factor, for each dtype and for all."""
    groups = [(str(dtype), rows) for dtype, rows in frame.groupby("dtype", sort=False)]
    rows = []
    for name, mine in [*groups, ("all", frame)]:
        count = len(mine)
        rows.append(
            {
                "values in": name,
                "cells": str(count),
                f"chosen within {WITHIN:g}": _share((mine["ratio"] <= WITHIN).sum(), count),
                "single choices within": f"{100 * mine['within'].mean():.0f} %"
                if mine["within"].notna().any()
                else text.NONE,
                "chosen / best, median": text.number(mine["ratio"].median()),
                "chosen / best, largest": text.number(mine["ratio"].max()),
                f"fixed within {WITHIN:g}": _share((mine["fixed_ratio"] <= WITHIN).sum(), count),
                "fixed / best, median": text.number(mine["fixed_ratio"].median()),
                "fixed / best, largest": text.number(mine["fixed_ratio"].max()),
            }
        )
    return table(rows, "Cells within the factor of the best epsilon")


def _share(part: int, whole: int) -> str:
    return f"{part} of {whole} ({100 * part / whole:.0f} %)"
