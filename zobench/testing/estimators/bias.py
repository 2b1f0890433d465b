"""The order of the bias in epsilon, fitted."""

import math
from typing import NamedTuple

from zobench.random.keys import derive
from zobench.testing import enumeration, examples
from zobench.testing.check import Check, Level
from zobench.testing.examples import Example
from zobench.testing.mean import LARGEST, sampled
from zobench.testing.report import Finding, NotApplicableError
from zobench.testing.subject import Subject

EPSILONS = (0.8, 0.4, 0.2, 0.1)
LEAST = 1.0 / 64
TOLERATED = 0.35
"""What the next order adds to the slope between two of these epsilons."""


class _Bias(NamedTuple):
    """|E g - m grad f| and its error."""

    size: float
    error: float


def bias_order(subject: Subject, level: Level) -> Finding:
    """The slopes of log |E g - m grad f| over log epsilon, where the bias is seen."""
    if subject.epsilon is None:
        return _without_epsilon(subject)
    example, promised = examples.smooth(max(2, subject.least_dim)), subject.promises.order
    found = [(e, _bias(subject, example, e, level)) for e in EPSILONS]
    seen = [(e, b) for e, b in found if b.size > 4 * LARGEST * b.error]
    told = ", ".join(f"{b.size:.2g} at {e:g}" for e, b in found)
    if len(seen) < 2:
        return Finding(f"no bias is seen beyond its error: {told}", promised is None or promised >= 2, str(example))
    slope, least, most = _fitted(seen)
    fit = f"|E g - m grad f| ~ epsilon^{slope:.2f} (from {least:.2f} to {most:.2f}): {told}"
    holds = promised is None or least <= promised <= most
    return Finding(fit, holds, str(example), "" if promised is None else f"order {promised:g} is declared")


def _bias(subject: Subject, example: Example, epsilon: float, level: Level) -> _Bias:
    """The bias at an epsilon: enumerated, or sampled as the mean of differences to a small epsilon under one key."""
    one = subject.at(epsilon)
    exact = enumeration.mean(one, example.f, example.x)
    if exact is not None:
        m = 1.0 if subject.promises.mean is None else subject.promises.mean
        off = exact.value - m * example.gradient
        return _Bias(float(off.norm()), float(exact.rounding.norm()))
    key, count = derive("zobench.testing", "bias"), subject.count(level)
    rows = [s.samples(example.f, example.x, key, count) for s in (one, subject.at(LEAST))]
    difference = sampled(rows[0] - rows[1], key)
    return _Bias(float(difference.value.norm()), float(difference.error.norm()))


def _fitted(seen: list[tuple[float, _Bias]]) -> tuple[float, float, float]:
    """The slope between the two smallest epsilons, and an interval: five errors, and what higher orders add."""
    (far, one), (near, two) = seen[-2:]
    width = math.log(far / near)
    slope = math.log(one.size / two.size) / width
    error = LARGEST * math.hypot(one.error / one.size, two.error / two.size) / width + TOLERATED
    return slope, slope - error, slope + error


def _without_epsilon(subject: Subject) -> Finding:
    example = examples.smooth(max(2, subject.least_dim))
    exact, m = enumeration.mean(subject, example.f, example.x), subject.promises.mean
    if exact is None or m is None:
        raise NotApplicableError("it has no epsilon")
    off = float((exact.value - m * example.gradient).norm())
    told = f"|E g - m grad f| = {off:.2g}, without an epsilon"
    return Finding(told, off < 1e-6 * float(example.gradient.norm()), str(example))


CHECKS = (
    Check("bias-order", "E g - m grad f ~ epsilon^(j - 1), j the least odd order with sum_k w_k r_k^j != 0",
          bias_order, "order: the stencil's moments", lambda s: s.promises.order is not None),
)  # fmt: skip
