"""r in E[g] = r grad f on linear functions, measured."""

import math

import torch
from torch import Tensor

from zobench.random.keys import derive
from zobench.testing import enumeration, examples
from zobench.testing.factor import Ratio
from zobench.testing.subject import Subject

LEAST_SAMPLES = 25
LEAST_ERROR = 1e-6


def ratio_of(subject: Subject, dim: int, samples: int) -> Ratio:
    """Return r in one dimension: tr E[u u^T] / d where E[g] = E[u u^T] grad f, by enumeration of all outcomes where
    that is possible, else sampled with an error of LEAST_ERROR r or more.
    """
    along = _enumerated(subject, dim)
    if along is None:
        along = _sampled(subject, dim, max(samples, LEAST_SAMPLES))
    value, error = float(along.mean()), float(along.std()) / math.sqrt(len(along))
    return Ratio(value, max(error, LEAST_ERROR * abs(value), enumeration.ROUNDING), dim, subject.epsilon, subject.n)


def _enumerated(subject: Subject, dim: int) -> Tensor | None:
    line = examples.linear(dim)
    exact = enumeration.mean(subject, line.f, line.x)
    if exact is None:
        return None
    return (exact.value @ line.gradient / line.gradient.square().sum()).expand(2)


def _sampled(subject: Subject, dim: int, samples: int) -> Tensor:
    """The mean over axes i of g_i on f(x) = x_i - a_i under one key: of differences |u|^2 / d, which varies less than
    (u . v)^2 for one v.
    """
    a, key = examples.point(dim), derive("zobench.testing", "scale", dim)
    columns = [subject.samples(_Axis(i, float(a[i])), a, key, samples)[:, i] for i in range(dim)]
    return torch.stack(columns).mean(0)


class _Axis:
    """x_i - a_i."""

    def __init__(self, i: int, a: float) -> None:
        self.i, self.a = i, a

    def __call__(self, x: Tensor) -> Tensor:
        return x[..., self.i].double() - self.a
