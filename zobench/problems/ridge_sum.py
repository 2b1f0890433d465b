"""Sums of functions of one variable along lines in space."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.naming import require_known
from zobench.numbers import real, store
from zobench.problem import Ridges

Row = tuple[float, ...]


def _sine(s: Tensor, order: int) -> Tensor:
    return (s + order * math.pi / 2).sin()


def _exponential(s: Tensor, order: int) -> Tensor:
    return s.exp()


def _tanh(s: Tensor, order: int) -> Tensor:
    """A polynomial in t = tanh s, since t' = 1 - t^2."""
    t, coefficients = s.tanh(), [0.0, 1.0]
    for _ in range(order):
        slopes = [k * c for k, c in enumerate(coefficients)][1:]
        padded = [*slopes, 0.0, 0.0]
        coefficients = [c - before for c, before in zip(padded, [0.0, 0.0, *slopes], strict=True)]
    value = torch.zeros_like(t)
    for coefficient in reversed(coefficients):
        value = value * t + coefficient
    return value


def _softplus(s: Tensor, order: int) -> Tensor:
    if order == 0:
        value: Tensor = torch.nn.functional.softplus(s)
        return value
    half: Tensor = _tanh(s / 2, order - 1) / 2.0**order
    return half + 0.5 if order == 1 else half


SHAPES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "exp": _exponential,
    "sin": _sine,
    "tanh": _tanh,
    "softplus": _softplus,
}
"""phi by name: (s, k) -> the k-th derivative of phi at s."""


@dataclass(frozen=True)
class RidgeSum:
    """f(x) = sum_j heights_j phi(directions_j . x + offsets_j), phi of the name `shape`, batched: x (..., d) float64 ->
    (...). With "tanh" it is a network of one hidden layer in its inputs.

    D^k f(x)[u, ..., u] = sum_j heights_j phi^(k)(s_j) (directions_j . u)^k, exact at every order.

    Raises:
        UnknownNameError: no such shape.
        ValueError: no direction, or not as many heights and offsets, or directions of several lengths.
    """

    shape: str
    directions: tuple[Row, ...]
    heights: Row
    offsets: Row

    def __post_init__(self) -> None:
        require_known(self.shape, SHAPES, "shape of a ridge")
        rows = tuple(tuple(real("an entry of a direction", v) for v in row) for row in self.directions)
        store(self, directions=rows, heights=tuple(map(float, self.heights)), offsets=tuple(map(float, self.offsets)))
        if not rows or len({len(row) for row in rows}) > 1 or not rows[0]:
            raise ValueError(f"directions are {self.directions!r}: give one or more of one length")
        if not len(rows) == len(self.heights) == len(self.offsets):
            raise ValueError(f"give one height and one offset for each of the {len(rows)} directions")

    @property
    def dim(self) -> int:
        """Number of variables."""
        return len(self.directions[0])

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x) (...)."""
        return self._line(x, 0).sum(-1)

    def value(self, x: Tensor) -> Tensor:
        """Return f(x) (...)."""
        return self(x)

    def gradient(self, x: Tensor) -> Tensor:
        """Return grad f(x) (..., d)."""
        return self._line(x, 1) @ self._rows

    def hessian(self, x: Tensor) -> Tensor:
        """Return D^2 f(x) (d, d)."""
        return self._rows.T @ (self._line(x, 2)[:, None] * self._rows)

    def derivative(self, x: Tensor, u: Tensor, order: int) -> Tensor:
        """Return D^order f(x)[u, ..., u], broadcasting x and u."""
        return (self._line(x, order) * (u.double() @ self._rows.T) ** order).sum(-1)

    def grad_laplacian(self, x: Tensor, order: int = 1) -> Tensor:
        """Return grad(Lap^order f)(x) (..., d)."""
        return (self._line(x, 2 * order + 1) * self._rows.square().sum(-1) ** order) @ self._rows

    def ridges(self, x: Tensor, order: int) -> Ridges:
        """Return D^order f(x) as powers of the directions."""
        return Ridges(self._line(x, order), self._rows)

    @cached_property
    def _rows(self) -> Tensor:
        return torch.tensor(self.directions, dtype=torch.float64, device=CPU)

    def _line(self, x: Tensor, order: int) -> Tensor:
        """heights_j phi^(order)(s_j), (..., m)."""
        heights, offsets = (torch.tensor(v, dtype=torch.float64, device=CPU) for v in (self.heights, self.offsets))
        return heights * SHAPES[self.shape](x.double() @ self._rows.T + offsets, order)
