"""Where there is nothing to find, and where losses are no numbers."""

import math

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.problems import polynomial
from zobench.testing import examples
from zobench.testing.check import Check, Level
from zobench.testing.examples import Example
from zobench.testing.mean import LARGEST, mean_of
from zobench.testing.report import Finding
from zobench.testing.subject import Function, Subject


def constant(subject: Subject, level: Level) -> Finding:
    """The estimate of a function that is the same everywhere."""
    dim = max(2, subject.least_dim)
    for c in (0.0, 3.0):
        example = Example(polynomial(f"{c:g}", dim), examples.point(dim))
        for key in range(level.keys):
            g = subject.estimate(example.f, example.x, key)
            if not float(g.abs().max()) < 1e-9:
                return Finding(f"g = {g.tolist()}", False, str(example), f"key = {key}")
    return Finding("g = 0", True)


def stationary(subject: Subject, level: Level) -> Finding:
    """E[g] at the minimum of a quadratic function."""
    dim = max(2, subject.least_dim)
    f = polynomial(" + ".join(f"{i + 1} x{i}^2" for i in range(dim)), dim)
    example = Example(f, torch.zeros(dim, dtype=torch.float64, device=CPU))
    mean = mean_of(subject, example, level)
    sentence = f"E[g] = {mean.value.tolist()}"
    zero = torch.zeros_like(mean.value)
    holds = bool(mean.value.isfinite().all()) and mean.z(zero) < LARGEST
    return Finding("E[g] = 0, " + mean.evidence(zero) if holds else sentence, holds, str(example), mean.evidence(zero))


def not_a_number(subject: Subject, level: Level) -> Finding:
    """Losses that are NaN."""
    return _spoilt(subject, level, math.nan)


def infinite(subject: Subject, level: Level) -> Finding:
    """Losses that are infinite."""
    return _spoilt(subject, level, math.inf)


def _spoilt(subject: Subject, level: Level, value: float) -> Finding:
    """Whether a loss of this value is told on, by an error or by an estimate that is not finite: spaces refuse to step
    along it.
    """
    example = examples.quadratic(max(2, subject.least_dim))
    for key in range(level.keys):
        for name, f in (("every loss is", lambda x: _all(x, value)), ("the first loss is", _First(example.f, value))):
            try:
                g = subject.estimate(f, example.x, key)
            except (FloatingPointError, ValueError, OverflowError) as error:
                sentence = f"{type(error).__name__}: {error}"
                continue
            if bool(g.isfinite().all()):
                return Finding(f"g = {g.tolist()} where {name} {value}", False, str(example), f"key = {key}")
            sentence = "an estimate that is not finite, which no space steps along"
    return Finding(sentence, True)


def _all(x: Tensor, value: float) -> Tensor:
    return x.double().sum(-1) * 0 + value


class _First:
    """A function whose value at the first point of an estimate is spoilt."""

    def __init__(self, f: Function, value: float) -> None:
        self.f, self.value, self.calls = f, value, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        value = self.f(x)
        return value * 0 + self.value if self.calls == 1 else value


CHECKS = (
    Check("constant", "g = 0 on a constant", constant, "shift", lambda s: s.promises.shift),
    Check("stationary", "E[g] = 0 at the minimum of a quadratic function", stationary,
          "a mean, and directions with u ~ -u",
          lambda s: s.promises.mean is not None and s.promises.quadratic),
    Check("nan", "an estimate from losses that are NaN is not finite, or an error", not_a_number, "linear",
          lambda s: s.promises.linear),
    Check("infinite", "an estimate from infinite losses is not finite, or an error", infinite, "linear",
          lambda s: s.promises.linear),
)  # fmt: skip
