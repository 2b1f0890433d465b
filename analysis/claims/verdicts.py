"""Verdicts from numbers: each function returns HOLDS, FAILS or UNDECIDED."""

import math
from collections.abc import Iterable

from analysis.claims.claim import FAILS, HOLDS, UNDECIDED
from analysis.statistics import Interval

EXACT = 1e-9
FAR = 5.0  # standard errors: one of a few hundred measurements is not farther from a true prediction


def confirmed(pairs: Iterable[tuple[float, float, float]], slack: float = EXACT) -> str:
    """HOLDS if every (predicted, measured, standard error) agrees within FAR errors, or within the slack."""
    return HOLDS if all(agrees(*pair, slack) for pair in pairs) else FAILS


def agrees(predicted: float, measured: float, error: float, slack: float = EXACT) -> bool:
    """Whether one measurement agrees with its prediction; `slack` is what the prediction leaves out."""
    return abs(measured - predicted) <= max(FAR * error, slack * max(1.0, abs(predicted)))


def near(value: Interval, wanted: float, tolerance: float) -> str:
    """HOLDS if the interval lies within `tolerance` of what is wanted, FAILS if it lies beyond, else UNDECIDED."""
    low, high = wanted - tolerance, wanted + tolerance
    if math.isnan(value.low):
        return UNDECIDED
    if low <= value.low and value.high <= high:
        return HOLDS
    return FAILS if value.high < low or high < value.low else UNDECIDED


def all_of(verdicts: Iterable[str]) -> str:
    """FAILS if one fails, HOLDS if all hold, else UNDECIDED."""
    found = list(verdicts)
    if FAILS in found:
        return FAILS
    return HOLDS if found and all(verdict == HOLDS for verdict in found) else UNDECIDED
