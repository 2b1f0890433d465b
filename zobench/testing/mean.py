"""E[g], enumerated where every outcome is known and sampled elsewhere; and z, by which it is judged."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.random.keys import derive
from zobench.testing import enumeration
from zobench.testing.check import Level
from zobench.testing.examples import Example
from zobench.testing.subject import Subject

LARGEST = 5.0
"""|z| from which a deviation is none of chance: 6 in 10^7 of normal numbers are beyond."""


class Mean(NamedTuple):
    """E[g] (d,) with the error of each entry, how it was found, and the samples and the key where it was sampled."""

    value: Tensor
    error: Tensor
    samples: int
    key: int

    def z(self, expected: Tensor) -> float:
        """Return the largest deviation in errors, over the entries."""
        return float(((self.value - expected).abs() / self.error).max())

    def along(self, direction: Tensor) -> tuple[float, float]:
        """Return the ratio r of the part r v along a vector v, and its error."""
        square = float(direction @ direction)
        return float(self.value @ direction) / square, float(self.error.norm()) / math.sqrt(square)

    def evidence(self, expected: Tensor) -> str:
        """Return n, z and the key in words."""
        if not self.samples:
            return f"deviation {float((self.value - expected).abs().max()):.3g}, by enumeration of all outcomes"
        return f"n = {self.samples}, z = {self.z(expected):.3g}, key = {self.key}"


def mean_of(subject: Subject, example: Example, level: Level) -> Mean:
    """Return E[g] of an estimate on a problem: exact to rounding where enumeration covers the estimator."""
    exact = enumeration.mean(subject, example.f, example.x)
    if exact is not None:
        return Mean(exact.value, exact.rounding / LARGEST, 0, 0)
    key, count = derive("zobench.testing", "mean", repr(example.f)), subject.count(level)
    return sampled(subject.samples(example.f, example.x, key, count), key)


def sampled(rows: Tensor, key: int) -> Mean:
    """Return the mean of rows (n, d); the error of entries that do not vary is that of rounding."""
    rounding = 1e-11 * (rows.abs().max() + 1e-300)
    error = rows.std(0) / math.sqrt(len(rows))
    return Mean(rows.mean(0), torch.maximum(error, rounding.expand_as(error)), len(rows), key)


def scalar_z(values: Tensor, expected: float, least: float = 0.0) -> tuple[float, float, float]:
    """Return mean, standard error and z of the mean of numbers (n,); the error is `least` or more."""
    mean, error = float(values.mean()), float(values.std()) / math.sqrt(len(values))
    error = max(error, least, 1e-11 * float(values.abs().max()), 1e-300)
    return mean, error, abs(mean - expected) / error
