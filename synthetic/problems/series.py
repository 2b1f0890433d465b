"""Taylor arithmetic: functions of a point carried along a line as truncated power series in t.

Pushing x + t u through a formula gives f(x + t u) = sum_k c_k t^k, hence D^k f(x)[u, ..., u] = k! c_k, exact to
rounding at every order. Cost: order^2 / 2 products a multiplication, against 2^order evaluations for nested dual
numbers. Source: Griewank and Walther 2008, chapter 13.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

OVERFLOW = 700.0  # e^x is not finite in float64 beyond 709


@dataclass(frozen=True, eq=False)
class PowerSeries:
    """sum_k coefficients[k] t^k, with values of any shape: coefficients are (order + 1, ...).

    It has the methods of a tensor that a formula uses, so that one formula serves points and lines. Values that are
    combined have the same number of axes, since the powers of t come first.
    """

    coefficients: Tensor

    @classmethod
    def line(cls, x: Tensor, u: Tensor, order: int) -> "PowerSeries":
        """Return x + t u up to t^order, x and u broadcast against each other."""
        x, u = torch.broadcast_tensors(x, u)
        return cls(torch.stack([x, u] + [torch.zeros_like(x)] * (order - 1)))

    def _mapped(self, linear: Callable[[Tensor], Tensor]) -> "PowerSeries":
        return PowerSeries(linear(self.coefficients))

    def __getitem__(self, index: Any) -> "PowerSeries":
        if not (isinstance(index, tuple) and index and index[0] is Ellipsis):
            raise TypeError(f"index {index!r}: a series takes [..., index] only, so that it indexes values")
        return self._mapped(lambda c: c[index])

    def sum(self, axis: int) -> "PowerSeries":
        """Return the sum over a (negative) axis."""
        return self._mapped(lambda c: c.sum(axis))

    def mean(self, axis: int) -> "PowerSeries":
        """Return the mean over a (negative) axis."""
        return self._mapped(lambda c: c.mean(axis))

    def unflatten(self, axis: int, sizes: tuple[int, ...]) -> "PowerSeries":
        """Return the series with a (negative) axis cut into several."""
        return self._mapped(lambda c: c.unflatten(axis, sizes))

    def __matmul__(self, matrix: Tensor) -> "PowerSeries":
        return self._mapped(lambda c: c @ matrix)

    def __neg__(self) -> "PowerSeries":
        return self._mapped(torch.neg)

    def __add__(self, other: "PowerSeries | Tensor | float") -> "PowerSeries":
        if isinstance(other, PowerSeries):
            return PowerSeries(self.coefficients + other.coefficients)
        head, rest = self.coefficients[:1] + other, self.coefficients[1:]
        return PowerSeries(torch.cat((head, rest.expand(-1, *head.shape[1:]))))

    __radd__ = __add__

    def __sub__(self, other: "PowerSeries | Tensor | float") -> "PowerSeries":
        return self + -other

    def __rsub__(self, other: "Tensor | float") -> "PowerSeries":
        return -self + other

    def __mul__(self, other: "PowerSeries | Tensor | float") -> "PowerSeries":
        if not isinstance(other, PowerSeries):
            return self._mapped(lambda c: c * other)
        a, b = self.coefficients, other.coefficients
        return PowerSeries(torch.stack([_convolved(a, b, k) for k in range(len(a))]))

    __rmul__ = __mul__

    def square(self) -> "PowerSeries":
        """Return the square."""
        return self * self

    def exp(self) -> "PowerSeries":
        """Return y = e^x, from y' = y x'."""
        return self._solve(self.coefficients[0].exp(), lambda y: y)

    def tanh(self) -> "PowerSeries":
        """Return y = tanh x, from y' = (1 - y^2) x'."""
        return self._solve(self.coefficients[0].tanh(), _less_square)

    def cos(self) -> "PowerSeries":
        """Return cos x, from (cos x)' = -sin x x' and (sin x)' = cos x x'."""
        a = self.coefficients
        cosine, sine = [a[0].cos()], [a[0].sin()]
        for k in range(1, len(a)):
            falls, rises = _integrated(sine, a, k), _integrated(cosine, a, k)
            cosine.append(-falls)
            sine.append(rises)
        return PowerSeries(torch.stack(cosine))

    def sqrt(self) -> "PowerSeries":
        """Return y = sqrt x, from y^2 = x; NaN where x is 0."""
        a = self.coefficients
        y = [a[0].sqrt()]
        for k in range(1, len(a)):
            known = sum((y[j] * y[k - j] for j in range(1, k)), torch.zeros_like(y[0]))
            y.append((a[k] - known) / (2 * y[0]))
        return PowerSeries(torch.stack(y))

    def _solve(self, first: Tensor, slope: Callable[[list[Tensor]], Sequence[Tensor]]) -> "PowerSeries":
        """The y with y' = slope(y) x', coefficient by coefficient."""
        y = [first]
        for k in range(1, len(self.coefficients)):
            y.append(_integrated(slope(y), self.coefficients, k))
        return PowerSeries(torch.stack(y))


Point = TypeVar("Point", Tensor, PowerSeries)
"""The argument and result of a formula: it maps a tensor to a tensor, and a series to a series."""


def softplus(x: Point) -> Point:
    """Return y = log(1 + e^x) of a tensor or a series, from y' = x' (1 + tanh(x / 2)) / 2."""
    if isinstance(x, Tensor):
        return torch.nn.functional.softplus(x, threshold=OVERFLOW)
    a = x.coefficients
    slope = (0.5 * (1.0 + (0.5 * x).tanh())).coefficients
    return PowerSeries(torch.stack([softplus(a[0])] + [_integrated(slope, a, k) for k in range(1, len(a))]))


def _convolved(a: Sequence[Tensor] | Tensor, b: Sequence[Tensor] | Tensor, k: int) -> Tensor:
    total = a[0] * b[k]
    for j in range(1, k + 1):
        total = total + a[j] * b[k - j]
    return total


def _integrated(slope: Sequence[Tensor] | Tensor, a: Tensor, k: int) -> Tensor:
    """Coefficient k of the integral of slope(t) a'(t)."""
    total = slope[k - 1] * a[1]
    for j in range(2, k + 1):
        total = total + slope[k - j] * (j * a[j])
    return total / k


def _less_square(y: list[Tensor]) -> list[Tensor]:
    """Coefficients of 1 - y^2."""
    return [(1.0 if k == 0 else 0.0) - _convolved(y, y, k) for k in range(len(y))]
