"""Intervals and tests that the tables and sentences quote; every one at the 95 % level, two-sided."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from zobench.figures.panels import LEVEL
from zobench.figures.panels import Z as Z


class Interval(NamedTuple):
    """An estimate between its bounds; NaN bounds where one observation leaves them unknown."""

    estimate: float
    low: float
    high: float


class Comparison(NamedTuple):
    """A mean difference with its interval, the p-value against zero and the number of pairs behind them."""

    difference: Interval
    p: float
    pairs: int


def t_interval(values: ArrayLike) -> Interval:
    """Mean and Student interval, mean +- t s / sqrt(n) with n - 1 degrees of freedom."""
    sample = np.asarray(values, dtype=float)
    mean = float(sample.mean()) if sample.size else math.nan
    if sample.size < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf(0.5 + LEVEL / 2, sample.size - 1) * sample.std(ddof=1) / math.sqrt(sample.size))
    return Interval(mean, mean - half, mean + half)


def bounded(value: Interval, low: float, high: float) -> Interval:
    """The part of an interval in which the quantity can lie; it covers the truth as often as the whole."""
    return Interval(value.estimate, max(value.low, low), min(value.high, high)) if not math.isnan(value.low) else value


def t_proportion(values: ArrayLike) -> Interval:
    """Mean of proportions with the part of its Student interval that lies between 0 and 1."""
    return bounded(t_interval(values), 0.0, 1.0)


def wilson(accuracy: float, examples: int) -> Interval:
    """Wilson's score interval of a proportion: what a test set of that size leaves open for one model."""
    proportion = stats.binomtest(round(accuracy * examples), examples).proportion_ci(LEVEL, method="wilson")
    return Interval(accuracy, float(proportion.low), float(proportion.high))


def paired(first: ArrayLike, second: ArrayLike) -> Comparison:
    """Paired t test of first - second.

    p is NaN where the differences do not vary: equal results, or one pair, leave nothing to test.
    """
    difference = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    interval = t_interval(difference)
    spread = float(difference.std()) if difference.size else 0.0
    varies = difference.size > 1 and spread > 1e-12 * max(1.0, float(np.abs(difference).max()))
    p = float(stats.ttest_1samp(difference, 0.0).pvalue) if varies else math.nan
    return Comparison(interval, p, int(difference.size))


def ratio_of_means(first: ArrayLike, second: ArrayLike) -> Interval:
    """mean(first) / mean(second) of pairs, with a Student interval on its logarithm by the delta method.

    log ratio +- t s / sqrt(n), s the standard deviation of first_i / mean(first) - second_i / mean(second): pairs that
    vary together leave the ratio sharp. NaN where a mean is not positive.
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if not one.size or not (one.mean() > 0 and two.mean() > 0):
        return Interval(math.nan, math.nan, math.nan)
    ratio = float(one.mean() / two.mean())
    around = t_interval(one / one.mean() - two / two.mean())
    half = around.high - around.estimate
    return Interval(ratio, ratio * math.exp(-half), ratio * math.exp(half))


def against_chance(accuracy: float, chance: float, examples: int) -> Comparison:
    """One model against a fixed chance level: Wilson interval and exact binomial p over test examples."""
    interval = wilson(accuracy, examples)
    p = float(stats.binomtest(round(accuracy * examples), examples, chance).pvalue)
    return Comparison(Interval(*(bound - chance for bound in interval)), p, 1)


def two_proportions(first: float, second: float, examples: int) -> Comparison:
    """Difference of two accuracies over as many examples: Newcombe's interval, pooled z test.

    Both were measured on the same examples; as rows do not say which were right, the pairing is given up.
    """
    one, two = wilson(first, examples), wilson(second, examples)
    low = first - second - math.hypot(first - one.low, two.high - second)
    high = first - second + math.hypot(one.high - first, second - two.low)
    pooled = (first + second) / 2
    error = math.sqrt(2 * pooled * (1 - pooled) / examples)
    p = float(2 * stats.norm.sf(abs(first - second) / error)) if error else math.nan
    return Comparison(Interval(first - second, low, high), p, 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, which bound the chance of any false positive in the family; NaN stays NaN."""
    adjusted = [math.nan] * len(p_values)
    tested = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    largest = 0.0
    for rank, (p, index) in enumerate(tested):
        largest = max(largest, min(1.0, p * (len(tested) - rank)))
        adjusted[index] = largest
    return adjusted
