"""The problems of the checks, the smallest first: what fails on the first of them is told with it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.problems import RidgeSum, polynomial

POINT = (0.5, -0.25, 0.75, -0.375, 0.625, -0.125)


class Example(NamedTuple):
    """A problem and a point (d,)."""

    f: Any
    x: Tensor

    @property
    def gradient(self) -> Tensor:
        """The gradient at the point."""
        gradient: Tensor = self.f.gradient(self.x)
        return gradient

    def __str__(self) -> str:
        return f"f = {self.f!r} at x = {self.x.tolist()}"


def point(dim: int) -> Tensor:
    """Return a point without symmetry."""
    return torch.tensor(
        [POINT[i % len(POINT)] * 1.1 ** (i // len(POINT)) for i in range(dim)], dtype=torch.float64, device=CPU
    )


def linear(dim: int) -> Example:
    """Return f = 2 x0 - 3 x1 + 4 x2 - ..."""
    terms = (f"{'-' if i % 2 else '+'} {i + 2} x{i}" for i in range(dim))
    return Example(polynomial(" ".join(terms).removeprefix("+ "), dim), point(dim))


def quadratic(dim: int) -> Example:
    """Return f = x0 + sum_i (i + 1) x_i^2 / 2 + sum_i x_i x_(i+1)."""
    squares = [f"{(i + 1) / 2} x{i}^2" for i in range(dim)]
    mixed = [f"x{i} x{i + 1}" for i in range(dim - 1)]
    return Example(polynomial(" + ".join(["x0", *squares, *mixed]), dim), point(dim))


def smooth(dim: int) -> Example:
    """Return f = sum_j h_j exp(v_j . x), whose derivatives of no order vanish: two lines couple the variables."""
    first = tuple(0.6 - 0.1 * (i % 5) for i in range(dim))
    second = tuple((-1.0) ** i * (0.3 + 0.1 * (i % 3)) for i in range(dim))
    return Example(RidgeSum("exp", (first, second), (1.0, 0.5), (0.0, 0.1)), point(dim))


def sizes(least: int, dims: tuple[int, ...] = (1, 2, 4)) -> tuple[int, ...]:
    """Return dimensions to try, from the smallest that a subject works in."""
    return tuple(dict.fromkeys(max(dim, least) for dim in dims))


def all_of(least: int) -> Iterator[Example]:
    """Yield every kind of problem in every dimension, the smallest first."""
    for dim in sizes(least):
        yield from (linear(dim), quadratic(dim), smooth(dim))
