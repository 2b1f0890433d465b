"""Combination: the answer of an estimator, a formal sum of c_i u_i that nobody has to materialise."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from zobench.law import Law


class Term(NamedTuple):
    """sum_i coefficients[..., i] u_i over the n directions of (law, key); coefficients are (*batch, n)."""

    law: Law
    key: int
    coefficients: Tensor


@dataclass(frozen=True, eq=False)
class Combination:
    """A formal sum of terms, sum_t sum_i c_ti u_ti, closed under + and multiplication by a scalar."""

    terms: tuple[Term, ...] = ()

    def __add__(self, other: "Combination") -> "Combination":
        return Combination(self.terms + other.terms)

    def __mul__(self, scalar: float) -> "Combination":
        return Combination(tuple(t._replace(coefficients=t.coefficients * scalar) for t in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> "Combination":
        return self * -1.0

    def __sub__(self, other: "Combination") -> "Combination":
        return self + -other

    @property
    def finite(self) -> bool:
        """Whether every coefficient is finite: a step along anything else would destroy the parameters."""
        return all(bool(t.coefficients.isfinite().all()) for t in self.terms)
