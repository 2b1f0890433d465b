"""A hidden factor of an estimate, found and named."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

BEYOND = 5.0
EXACT = 1e-6
PRECISE = 1e-3
"""The relative error up to which products are candidates: with a larger one some product fits any number."""
STEADY = 0.02
"""The relative error up to which a constant is told from the square root of the dimension."""
LISTED = 3


class Ratio(NamedTuple):
    """r in E[g] = r grad f with its error, and where it was measured: the dimension, epsilon and the number of
    directions, None where there is none.
    """

    value: float
    error: float
    dim: int
    epsilon: float | None = None
    n: int | None = None


Value = Callable[[Ratio], float]


class _Factor(NamedTuple):
    """A factor that estimates have by mistake: its name, that of its inverse, and its value."""

    name: str
    inverse: str
    value: Value


class _Candidate(NamedTuple):
    """A name that r may have, what it means, and its value."""

    name: str
    meaning: str
    value: Value


FACTORS = (
    _Factor("d", "1/d", lambda r: r.dim),
    _Factor("sqrt(d)", "1/sqrt(d)", lambda r: math.sqrt(r.dim)),
    _Factor("epsilon", "1/epsilon", lambda r: math.nan if r.epsilon is None else r.epsilon),
    _Factor("n", "1/n", lambda r: math.nan if r.n in (None, 1) else float(r.n or 1)),
    _Factor("2", "1/2", lambda r: 2.0),
    _Factor("3", "1/3", lambda r: 3.0),
    _Factor("(d + 2)", "1/(d + 2)", lambda r: r.dim + 2),
)
POWERS = FACTORS + tuple(_Factor(f.inverse, f.name, lambda r, f=f: 1 / f.value(r)) for f in FACTORS)  # type: ignore[misc]


def name_factor(ratios: Sequence[Ratio]) -> str:
    """Return in words which factor r in E[g] = r grad f is, from ratios at several dimensions and epsilons that tell
    factors apart: "is 1/d: a factor d is missing".

    A factor is named where every other one is more than five errors away from a ratio: "is 0 or epsilon: the error is
    too large to tell" where two or three are left. Empty where r = 1 fits, where more are left, or none.
    """
    if _fits(ratios, lambda r: 1.0):
        return ""
    fitting = [c for c in _single() if _fits(ratios, c.value)]
    if not fitting and _known_to(PRECISE, ratios):
        fitting = [c for c in _products() if _fits(ratios, c.value)]
    if len(fitting) == 1:
        return f"is {fitting[0].name}: {fitting[0].meaning}"
    if fitting:
        return f"is {_alternatives(fitting)}" if len(fitting) <= LISTED else ""
    mean = sum(r.value for r in ratios) / len(ratios)
    steady = _known_to(STEADY, ratios) and _fits(ratios, lambda r: mean)
    return f"is the constant {mean:.3g} everywhere" if steady else ""


def _single() -> Iterator[_Candidate]:
    yield _Candidate("0", "the estimate does not see the gradient", lambda r: 0.0)
    yield _Candidate("-1", "the sign is wrong", lambda r: -1.0)
    for name, inverse, value in POWERS:
        missing = f"a factor {inverse} is missing"
        yield _Candidate(name, missing, value)
        yield _Candidate(f"-{name}", f"{missing}, and the sign is wrong", lambda r, value=value: -value(r))  # type: ignore[misc]


def _products() -> Iterator[_Candidate]:
    for (name, inverse, value), (also, other, factor) in combinations(POWERS, 2):
        if name != other:
            missing = f"a factor {inverse} * {other} is missing"
            yield _Candidate(f"{name} * {also}", missing, lambda r, a=value, b=factor: a(r) * b(r))  # type: ignore[misc]


def _alternatives(candidates: Sequence[_Candidate]) -> str:
    *names, last = (c.name for c in candidates)
    return f"{', '.join(names)} or {last}: the error is too large, or n and d too alike, to tell"


def _known_to(relative: float, ratios: Sequence[Ratio]) -> bool:
    return all(r.error <= relative * abs(r.value) for r in ratios)


def _fits(ratios: Sequence[Ratio], factor: Value) -> bool:
    return all(abs(r.value - factor(r)) <= BEYOND * r.error + EXACT * abs(factor(r)) for r in ratios)
