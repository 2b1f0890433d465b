"""Numbers as a reader wants them: few digits, an interval in brackets, a p-value that never reads 0."""

import math
from collections.abc import Iterable

from analysis.statistics import Comparison, Interval, bounded
from zobench.figures.text import NONE as NONE
from zobench.figures.text import number as number


def setting(value: object) -> str:
    """A configured value (0.001, 1e-06, 'full', 4000) in its shortest exact form."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def rate(value: float) -> str:
    """A learning rate: 1/8 of one that is one over a power of two, else 0.001 or 1e-06."""
    halvings = -math.log2(value) if value > 0 else 0.0
    return f"1/{2 ** round(halvings)}" if halvings >= 1 and halvings.is_integer() else setting(value)


def power(value: float) -> str:
    """A tick label: 10⁻⁶ for a power of ten beyond two decimals, else the number."""
    exponent = round(math.log10(value)) if value > 0 else 0
    exact = value > 0 and math.isclose(value, 10.0**exponent, rel_tol=1e-9)
    return f"$10^{{{exponent}}}$" if exact and not -2 <= exponent <= 2 else number(value)


def fixed(value: float, decimals: int = 2, signed: bool = False) -> str:
    """`value` with a fixed number of decimals, with a sign where asked."""
    if math.isnan(value):
        return NONE
    return f"{value:{'+' if signed else ''}.{decimals}f}".replace("-", "−")


def interval(value: Interval, decimals: int = 2, signed: bool = False) -> str:
    """`2.00 [1.99, 2.01]`; the estimate alone where there are no bounds."""
    estimate = fixed(value.estimate, decimals, signed)
    if math.isnan(value.low):
        return estimate
    return f"{estimate} [{fixed(value.low, decimals, signed)}, {fixed(value.high, decimals, signed)}]"


def slope(value: Interval) -> str:
    """A slope with as many decimals (2 or 3) as its interval needs to have a width."""
    half = value.high - value.estimate
    return interval(value, min(3, max(2, math.ceil(-math.log10(half)) if half > 0 else 2)))


def points(value: Interval, signed: bool = False) -> str:
    """An accuracy in percent or a difference of accuracies in points, one decimal, with bounds that it can reach."""
    reachable = bounded(value, -1.0 if signed else 0.0, 1.0)
    return interval(Interval(*(100 * bound for bound in reachable)), 1, signed)


def percent(value: Interval) -> str:
    """`85.0 % [81.6, 88.1]`, no line broken before the sign; the estimate alone where there are no bounds."""
    if math.isnan(value.estimate):
        return NONE
    estimate, *bounds = points(value).split(" ", 1)
    return " ".join([f"{estimate}\u00a0%", *bounds])


def p_value(p: float) -> str:
    """A p-value to two digits, never below what a reader should believe."""
    if math.isnan(p):
        return NONE
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}" if p < 0.1 else f"{p:.2f}"


def margin(comparison: Comparison) -> str:
    """`+3.1 [+1.0, +5.2], p = 0.012`, in points of accuracy."""
    if math.isnan(comparison.difference.estimate):
        return NONE
    text = points(comparison.difference, signed=True)
    return text if math.isnan(comparison.p) else f"{text}, {p_phrase(comparison.p)}"


def p_phrase(p: float) -> str:
    """`p = 0.012` or `p < 0.0001`, to stand in a sentence."""
    return f"p {p_value(p)}" if p < 1e-4 else f"p = {p_value(p)}"


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def count(amount: int, noun: str) -> str:
    """`1 run`, `3 runs`."""
    return f"{amount} {noun}{'' if amount == 1 else 's'}"
