"""Design rows: kernels and roads to less bias at noise-to-gradient ratios, which rows keep as t / (1 + t)."""

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis import text

PLAIN = 1  # the order that removes no bias


def ratios(shares: pd.Series) -> pd.Series:
    """The ratio t of each share t / (1 + t): infinite where only noise counts."""
    return shares.where(shares < 1, np.nan).pipe(lambda share: share / (1 - share)).fillna(math.inf)


def with_ratio(frame: pd.DataFrame) -> pd.DataFrame:
    """Add the column `t`, rounded to what was asked for."""
    return frame.assign(t=ratios(frame["noise_share"]).map(lambda t: float(f"{t:.10g}")))


def ratio_name(t: float) -> str:
    """`t = 0.1`, or `t = ∞`."""
    return f"t = {text.number(t)}"


def nodes(row: pd.Series) -> list[tuple[float, float, float]]:
    """Node, probability and value of a kernel on finitely many nodes; none for one on an interval."""
    if not isinstance(row["probabilities"], list):
        return []
    columns: list[Any] = [row[name] for name in ("nodes", "probabilities", "values")]
    return [(float(r), float(p), float(k)) for r, p, k in zip(*columns, strict=True)]


def relative(roads: pd.DataFrame) -> pd.DataFrame:
    """Add `relative`, the cost of each road over that of the central difference (order 1, least cost) at the same t,
    and its `reach`.
    """
    base = roads[roads["order"] == PLAIN].groupby("t")["cost"].min()
    return roads.assign(relative=roads["cost"] / roads["t"].map(base), reach=roads["nodes"].map(reach))


def reach(nodes: object) -> float:
    """The farthest node of a stencil, in epsilons; kernels, whose rows list no nodes, reach 1."""
    if not isinstance(nodes, list):
        return 1.0
    return max((reach(node) for node in nodes), default=1.0) if isinstance(nodes[0], list) else max(map(abs, nodes))
