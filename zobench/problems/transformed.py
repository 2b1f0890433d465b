"""A problem seen through a linear map."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.numbers import real, store


@dataclass(frozen=True)
class Transformed:
    """height f(M x) + shift, f another problem and M `matrix` (d, d) by rows: scaled by a multiple of I, conditioned by
    a diagonal matrix, rotated by an orthogonal one. Its gradient is height M^T grad f(M x).

    Raises:
        ValueError: the matrix is not (d, d), or a number is not finite.
    """

    problem: Any
    matrix: tuple[tuple[float, ...], ...]
    height: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        rows = tuple(tuple(real("an entry of the matrix", v) for v in row) for row in self.matrix)
        store(self, matrix=rows, height=real("height", self.height), shift=real("shift", self.shift))
        if {len(rows), *map(len, rows)} != {self.dim}:
            raise ValueError(f"matrix is {self.matrix!r}: give {self.dim} rows of {self.dim} numbers")

    @property
    def dim(self) -> int:
        """Number of variables."""
        return int(self.problem.dim)

    @property
    def degree(self) -> int | None:
        """That of f, where it is a polynomial."""
        return getattr(self.problem, "degree", None)

    def __call__(self, x: Tensor) -> Tensor:
        """Return its value at x (...)."""
        inner: Tensor = self.problem(x.double() @ self._rows.T)
        return self.height * inner + self.shift

    def value(self, x: Tensor) -> Tensor:
        """Return its value at x (...)."""
        return self(x)

    def gradient(self, x: Tensor) -> Tensor:
        """Return its gradient at x (..., d)."""
        inner: Tensor = self.problem.gradient(x.double() @ self._rows.T)
        return self.height * inner @ self._rows

    @cached_property
    def _rows(self) -> Tensor:
        return torch.tensor(self.matrix, dtype=torch.float64, device=CPU)
