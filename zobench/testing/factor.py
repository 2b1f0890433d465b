"""A hidden factor of an estimate, found and named."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

BEYOND = 5.0
EXACT = 1e-6


class Ratio(NamedTuple):
    """r in E[g] = r grad f with its error, and where it was measured: the dimension, epsilon and the number of
    directions, None where there is none.
    """

    value: float
    error: float
    dim: int
    epsilon: float | None = None
    n: int | None = None


class _Factor(NamedTuple):
    """A factor that estimates have by mistake: its name, that of its inverse, and its value."""

    name: str
    inverse: str
    value: Callable[[Ratio], float]


FACTORS = (
    _Factor("d", "1/d", lambda r: r.dim),
    _Factor("sqrt(d)", "1/sqrt(d)", lambda r: math.sqrt(r.dim)),
    _Factor("epsilon", "1/epsilon", lambda r: math.nan if r.epsilon is None else r.epsilon),
    _Factor("n", "1/n", lambda r: math.nan if r.n in (None, 1) else float(r.n or 1)),
    _Factor("2", "1/2", lambda r: 2.0),
    _Factor("3", "1/3", lambda r: 3.0),
    _Factor("(d + 2)", "1/(d + 2)", lambda r: r.dim + 2),
)
"""Factors by how often they are met, the most often first: what fits with an earlier one is named by it."""


def name_factor(ratios: Sequence[Ratio]) -> str:
    """Return in words which factor r in E[g] = r grad f is, from ratios at several dimensions and epsilons that tell
    factors apart: "is 1/d: a factor d is missing"; empty where r = 1, or where the ratios have no name.
    """
    if _fits(ratios, lambda r: 1.0):
        return ""
    if _fits(ratios, lambda r: 0.0):
        return "is 0: the estimate does not see the gradient"
    if _fits(ratios, lambda r: -1.0):
        return "is -1: the sign is wrong"
    for sign, name, missing, value in _candidates():
        if _fits(ratios, lambda r, value=value, sign=sign: sign * value(r)):  # type: ignore[misc]
            shown = name if sign > 0 else f"-{name}"
            return f"is {shown}: a factor {missing} is missing" + (", and the sign is wrong" if sign < 0 else "")
    mean = sum(r.value for r in ratios) / len(ratios)
    return f"is the constant {mean:.3g} everywhere" if _fits(ratios, lambda r: mean) else ""


def _candidates() -> Iterator[tuple[float, str, str, Callable[[Ratio], float]]]:
    """Signs, names, names of the inverse and values of single factors, then of pairs."""
    powers = [(f.name, f.inverse, f.value) for f in FACTORS]
    powers += [(f.inverse, f.name, lambda r, f=f: 1 / f.value(r)) for f in FACTORS]  # type: ignore[misc]
    for sign in (1.0, -1.0):
        for name, inverse, value in powers:
            yield sign, name, inverse, value
    for (name, inverse, value), (also, other, factor) in combinations(powers, 2):
        if name != other:
            yield 1.0, f"{name} * {also}", f"{inverse} * {other}", lambda r, a=value, b=factor: a(r) * b(r)  # type: ignore[misc]


def _fits(ratios: Sequence[Ratio], factor: Callable[[Ratio], float]) -> bool:
    return all(abs(r.value - factor(r)) <= BEYOND * r.error + EXACT * abs(factor(r)) for r in ratios)
