"""The order of the bias in epsilon, fitted."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from zobench.random.keys import derive
from zobench.testing import enumeration, examples
from zobench.testing.check import Check, Level
from zobench.testing.examples import Example
from zobench.testing.mean import LARGEST, scalar_z
from zobench.testing.report import Finding, NotApplicableError
from zobench.testing.subject import Subject

EPSILONS = (0.8, 0.4, 0.2, 0.1)
LEAST = 1.0 / 64
TOLERATED = 0.35
"""What the next order adds to the slope between two of these epsilons."""


class _Bias(NamedTuple):
    """|E g - m grad f| and its error; where it was sampled, the samples of its part along one vector (n,)."""

    size: float
    error: float
    samples: Tensor | None = None


def bias_order(subject: Subject, level: Level) -> Finding:
    """The slopes of log |E g - m grad f| over log epsilon, where the bias is seen."""
    if subject.epsilon is None:
        return _without_epsilon(subject)
    example, promised = examples.smooth(max(2, subject.least_dim)), subject.promises.order
    biases = list(zip(EPSILONS, _biases(subject, example, level), strict=True))
    seen = [(e, b) for e, b in biases if b.size > LARGEST * b.error]
    sentence = ", ".join(f"{b.size:.2g} at {e:g}" for e, b in biases)
    if len(seen) < 2:
        return Finding(f"no bias is seen beyond its error: {sentence}", promised is None or promised >= 2, str(example))
    slope, least, most = _fitted(seen)
    fit = f"|E g - m grad f| ~ epsilon^{slope:.2f} (from {least:.2f} to {most:.2f}): {sentence}"
    holds = promised is None or least <= promised <= most
    return Finding(fit, holds, str(example), "" if promised is None else f"order {promised:g} is declared")


def _biases(subject: Subject, example: Example, level: Level) -> Iterator[_Bias]:
    """Yield the bias at each epsilon: enumerated, or sampled as the mean of differences to a small epsilon under one
    key, along the vector that it is at the largest.
    """
    m = 1.0 if subject.promises.mean is None else subject.promises.mean
    key, count = derive("zobench.testing", "bias"), subject.count(level)
    near, along = None, example.gradient
    for epsilon in EPSILONS:
        one = subject.at(epsilon)
        exact = enumeration.mean(one, example.f, example.x)
        if exact is not None:
            off = exact.value - m * example.gradient
            yield _Bias(float(off.norm()), float(exact.rounding.norm()))
            continue
        rows = one.samples(example.f, example.x, key, count)
        if near is None:
            near = subject.at(LEAST).samples(example.f, example.x, key, count)
            along = (rows - near).mean(0)
            along = along / along.norm().clamp(min=1e-300)
        samples = (rows - near) @ along
        mean, error, _ = scalar_z(samples, 0.0)
        yield _Bias(abs(mean), error, samples)


def _fitted(seen: list[tuple[float, _Bias]]) -> tuple[float, float, float]:
    """The slope between the two smallest epsilons, and an interval: five errors, and what higher orders add."""
    (far, one), (near, two) = seen[-2:]
    width = math.log(far / near)
    slope = math.log(one.size / two.size) / width
    error = LARGEST * _error(one, two) / width + TOLERATED
    return slope, slope - error, slope + error


def _error(one: _Bias, two: _Bias) -> float:
    """The standard error of log(one / two): of samples under one key by the spread of a / E a - b / E b."""
    if one.samples is None or two.samples is None:
        return math.hypot(one.error / one.size, two.error / two.size)
    apart = one.samples / one.samples.mean() - two.samples / two.samples.mean()
    return float(apart.std()) / math.sqrt(len(apart))


def _without_epsilon(subject: Subject) -> Finding:
    example = examples.smooth(max(2, subject.least_dim))
    exact, m = enumeration.mean(subject, example.f, example.x), subject.promises.mean
    if exact is None or m is None:
        raise NotApplicableError("it has no epsilon")
    off = float((exact.value - m * example.gradient).norm())
    sentence = f"|E g - m grad f| = {off:.2g}, without an epsilon"
    return Finding(sentence, off < 1e-6 * float(example.gradient.norm()), str(example))


CHECKS = (
    Check("bias-order", "E g - m grad f ~ epsilon^(j - 1), j the least odd order with sum_k w_k r_k^j != 0",
          bias_order, "order: the stencil's moments", lambda s: s.promises.order is not None),
)  # fmt: skip
