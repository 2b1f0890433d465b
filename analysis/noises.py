"""Noise reports of language models: what is left of a directional derivative's error at an epsilon, and of its bias."""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.statistics import Interval, Z

PLACE = ["model", "task", "dtype"]
COMMON = 1e-3  # the epsilon that MeZO and KerZOO are run with

Array = NDArray[np.float64]


class Parts(NamedTuple):
    """The two parts of the relative error of one central difference that a probe predicts, over epsilons."""

    truncation: Array
    noise: Array


def parts(level: pd.Series, epsilons: Array) -> Parts:
    """eps^2 D_3 / (6 D_1), and sqrt(s^2 + rounding^2) / (sqrt(2) eps D_1): root mean squares along a line."""
    spread = math.hypot(level["noise"], 0.0 if pd.isna(level["rounding"]) else level["rounding"])
    truncation = epsilons**2 * level["third"] / 6 / level["slope"]
    return Parts(truncation, spread / (math.sqrt(2) * epsilons * level["slope"]))


def bound(row: pd.Series) -> Interval:
    """The measured root mean square error of one directional derivative over the gradient: no bias is larger."""
    half = Z * row["relative_error_error"]
    return Interval(row["relative_error"], max(row["relative_error"] - half, 0.0), row["relative_error"] + half)


def along(row: pd.Series) -> Interval:
    """The bias along the gradient, over the gradient's norm."""
    half = Z * row["along_gradient_error"]
    return Interval(row["along_gradient"], row["along_gradient"] - half, row["along_gradient"] + half)


def nearest(rows: pd.DataFrame, epsilon: float = COMMON) -> pd.Series:
    """The row whose epsilon is nearest, on a logarithmic scale."""
    return rows.loc[(np.log(rows["epsilon"]) - math.log(epsilon)).abs().idxmin()]


def last(frame: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """The rows, without earlier copies of rows that were written twice."""
    return frame.drop_duplicates(keys, keep="last")
