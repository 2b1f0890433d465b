"""Combination: the answer of an estimator, a formal sum of c_i u_i that nobody has to materialise."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple
from zlib import crc32

import torch
from torch import Tensor

from zobench.law import Law
from zobench.layout import CPU
from zobench.numbers import real

Line = tuple[Law, int, int]
"""A direction by name: law, key and index."""


class Term(NamedTuple):
    """sum_i coefficients[..., i] u_i over n directions of (law, key): those numbered `indices`, or 0 ... n - 1;
    coefficients are (*batch, n).
    """

    law: Law
    key: int
    coefficients: Tensor
    indices: tuple[int, ...] | None = None

    @property
    def lines(self) -> list[Line]:
        """The directions by name."""
        return [(self.law, self.key, index) for index in self.indices or range(self.coefficients.shape[-1])]


@dataclass(frozen=True, eq=False)
class Combination:
    """A formal sum of terms, sum_t sum_i c_ti u_ti, closed under + and multiplication by a scalar."""

    terms: tuple[Term, ...] = ()
    __array_ufunc__ = None  # so that NumPy leaves np.float32(2) * combination to __rmul__

    def __add__(self, other: "Combination") -> "Combination":
        return Combination(self.terms + other.terms)

    def __mul__(self, scalar: float) -> "Combination":
        factor = real("the factor of a combination", scalar, finite=False)
        return Combination(tuple(t._replace(coefficients=t.coefficients * factor) for t in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> "Combination":
        return self * -1.0

    def __sub__(self, other: "Combination") -> "Combination":
        return self + -other

    @property
    def finite(self) -> bool:
        """Whether every coefficient is finite: a step along anything else would destroy the parameters."""
        return all(bool(t.coefficients.isfinite().all()) for t in self.terms)

    @property
    def coefficients(self) -> Tensor:
        """The coefficients of all terms, float64 (*batch, sum of n)."""
        parts = [term.coefficients.double() for term in self.terms]
        return torch.cat(parts, -1) if parts else torch.empty(0, dtype=torch.float64, device=CPU)

    @property
    def lines(self) -> Iterator[tuple[Line, Tensor]]:
        """Each direction by name, with its coefficients (*batch)."""
        for term in self.terms:
            yield from zip(term.lines, term.coefficients.unbind(-1), strict=True)

    @property
    def checksum(self) -> int:
        """CRC-32 of the float64 coefficients and of the keys and indices they belong to: of what a step will do."""
        total = crc32(self.coefficients.cpu().contiguous().numpy().tobytes())
        for (_, key, index), _ in self.lines:
            total = crc32(key.to_bytes(8, "little") + index.to_bytes(8, "little"), total)
        return total
