"""Combination: the answer of an estimator, a formal sum of c_i u_i that nobody has to materialise."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from zobench.law import Law
from zobench.numbers import real


class Term(NamedTuple):
    """sum_i coefficients[..., i] u_i over the n directions of (law, key); coefficients are (*batch, n)."""

    law: Law
    key: int
    coefficients: Tensor


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
