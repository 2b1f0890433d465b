"""How many seeds or questions a difference needs before it can be told from noise."""

import math

from scipy import stats

from analysis.statistics import Comparison, Interval, two_proportions
from zobench.figures.panels import LEVEL

POWER = 0.8


def seeds_needed(deviation: float, effect: float, power: float = POWER, most: int = 100_000) -> int:
    """The least number of pairs with which a paired t test sees a mean difference `effect`, at this power, where single
    differences have this standard deviation; `most` where more are needed.
    """
    if effect == 0 or not math.isfinite(deviation):
        return most
    if deviation == 0:
        return 2
    low, high = 2, 2
    while power_of(high, deviation, effect) < power and high < most:
        low, high = high, min(most, 2 * high)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle, deviation, effect) >= power else (middle + 1, high)
    return high


def power_of(pairs: int, deviation: float, effect: float) -> float:
    """The power of a two-sided paired t test: P(|T| > t), T of the noncentral t law."""
    freedom, shift = pairs - 1, abs(effect) * math.sqrt(pairs) / deviation
    bar = float(stats.t.ppf(0.5 + LEVEL / 2, freedom))
    return float(stats.nct.sf(bar, freedom, shift) + stats.nct.cdf(-bar, freedom, shift))


def best_case(questions: int) -> float:
    """The least p of McNemar's exact test where one model is right in so many more questions: no question went the
    other way.
    """
    return min(1.0, 2.0 * 0.5**questions)


def unpaired(gain: float, accuracy: float, examples: int) -> Comparison:
    """The gain of one run over another of this accuracy, as two independent proportions."""
    return two_proportions(accuracy + gain, accuracy, examples)


def questions_needed(gain: float, discordant: float, power: float = POWER) -> int:
    """The least test set on which McNemar's test sees a gain, where this share of questions is right in one model
    alone: (z_level sqrt(q) + z_power sqrt(q - gain^2))^2 / gain^2 (Connor 1987).
    """
    level, wanted = stats.norm.ppf(0.5 + LEVEL / 2), stats.norm.ppf(power)
    spread = level * math.sqrt(discordant) + wanted * math.sqrt(max(discordant - gain**2, 0.0))
    return math.ceil(float(spread) ** 2 / gain**2)


FEWEST = 5


def median_interval(values: list[float]) -> Interval:
    """The median of values, infinite ones too, between the order statistics that cover it with at least 95 %, or of
    FEWEST values their range, which covers it with 93.8 %; NaN bounds of fewer.
    """
    ordered, count = sorted(values), len(values)
    if not count:
        return Interval(math.nan, math.nan, math.nan)
    low, high = ordered[(count - 1) // 2], ordered[count // 2]
    middle = low if low == high else (low + high) / 2
    if count < FEWEST:
        return Interval(middle, math.nan, math.nan)
    ranks = (rank for rank in range(count // 2, 1, -1) if 2 * stats.binom.cdf(rank - 1, count, 0.5) <= 1 - LEVEL)
    rank = next(ranks, 1)
    return Interval(middle, ordered[rank - 1], ordered[-rank])
