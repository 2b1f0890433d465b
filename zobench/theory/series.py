"""The moments of one direction's estimate as finite series in e, the displacement along u."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import numpy as np
import torch
from numpy.polynomial.polynomial import polyval
from numpy.typing import NDArray
from torch import Tensor

from zobench.estimator import LineEstimator
from zobench.law import Isotropic, Law
from zobench.law.law import require_room
from zobench.stencil import Stencil
from zobench.theory import laws
from zobench.theory.lines import HIGHEST_ORDER, Lines

NEGLIGIBLE = 1e-12
DISPLACEMENTS = 1e-30, 1e30  # their powers, from -2 to 10, are numbers
Terms = list[tuple[int, float]]
VectorTerms = list[tuple[int, Tensor]]
Powers = NDArray[np.float64]
"""sum_p c_p e^p over even p from -2 to 10, as c (7,): a prediction as a function of e."""


class Series:
    """What one law and one stencil make of one problem at one point, whatever epsilon and n: E g and E|g|^2 of one
    direction as sums of e^(j-1) m_j / j! E[D_j u] and e^(a+b-2) E[M_a M_b] / (a! b!) E[D_a D_b |u|^2].

    Products of derivatives are computed on first use and kept, so that a scan over epsilon asks the problem for nothing
    more.

    Args:
        law: an Isotropic law.
        stencil: nodes and weights of a line.
        lines: the derivatives of the problem at the point.

    Raises:
        ValueError: the law draws by tensor: the moments of its directions depend on the tensors' shapes.
        TypeError: the law is not Isotropic.
    """

    def __init__(self, law: Law, stencil: Stencil, lines: Lines) -> None:
        if law.by_tensor:
            raise ValueError(
                f"theory has no prediction of the law {law!r}, which draws by tensor: sample it, "
                "zobench.moments(..., layout=shapes)"
            )
        if not isinstance(law, Isotropic):
            raise TypeError(
                f"theory has no prediction of the law {law!r}, which is no zobench.Isotropic: its E[u u^T] or "
                "E[|u|^2 u u^T] is no known multiple of I; sample it, zobench.moments(...)"
            )
        self.law, self.stencil, self.lines = law, stencil, lines

    def bias(self, e: float) -> Tensor:
        """Return E g - grad f, (d,), at the displacement e."""
        first, *others = self._offsets
        return sum((e**power * term for power, term in others), first[1])

    @cached_property
    def second_moments(self) -> Powers:
        """E|g|^2 without noise."""
        return powers((a + b - 2, term) for (a, b), term in self._second_moment_terms.items())

    @cached_property
    def curvatures(self) -> Powers:
        """E[g^T H g] without noise."""
        return powers(self._curvature_terms)

    @cached_property
    def bias_squares(self) -> Powers:
        """|E g - grad f|^2."""
        return self.bilinear(torch.dot, self._offsets)

    @cached_property
    def mean_squares(self) -> Powers:
        """|E g|^2."""
        return self.bilinear(torch.dot, self.means)

    @cached_property
    def slopes(self) -> Powers:
        """The slope grad f . E g."""
        return powers((power, float(self.lines.gradient @ term)) for power, term in self.means)

    @cached_property
    def means(self) -> VectorTerms:
        """E g as sum_p e^p t_p: pairs p, t_p (d,)."""
        first = self.stencil.moment(1) * self.law.second_moment * self.lines.gradient
        return [(0, first), *self._bias_terms]

    def bilinear(self, form: Callable[[Tensor, Tensor], Tensor | float], terms: VectorTerms) -> Powers:
        """Return form(v, v) of v = sum_p e^p t_p, for a bilinear form."""
        return powers((p + q, float(form(left, right))) for p, left in terms for q, right in terms)

    @property
    def hessian(self) -> Tensor:
        """H = D^2 f(x)."""
        return self.lines.hessian("the expected descent")

    @cached_property
    def based(self) -> bool:
        """Whether the weights do not sum to 0, so that the value f(x) itself enters."""
        return float(self.stencil.quadrature(0).power_sums(0).abs().max()) > NEGLIGIBLE

    @cached_property
    def base_second_moment(self) -> float:
        """E[(sum_k w_k)^2], the factor of the square of an error that all values of a line share."""
        rule = self.stencil.quadrature(0)
        return rule.mean(rule.power_sums(0).square())

    @property
    def second_order(self) -> bool:
        """Whether the terms of order e^2 in the second moment are whole, ridges or not."""
        return abs(self.stencil.moment(2)) < NEGLIGIBLE or laws.quadratics_known(self.law, self.lines)

    @cached_property
    def exact(self) -> bool:
        """Whether nothing is left out of the second moment."""
        return self.lines.complete and laws.products_known(self.law, self.lines)

    @cached_property
    def left_out(self) -> Powers:
        """An estimate of the terms that the second moment lacks, 0 where it is exact: the kept part of each order that
        is not kept whole, and without ridges the least value of E[M_3^2] E[D_3^2 |u|^2] / 36 by Cauchy and Schwarz.
        """
        if self.exact:
            return powers(())
        known = laws.products_known(self.law, self.lines)
        missing = np.abs(beyond(self.second_moments, 4 if known else 2))
        terms = self._second_moment_terms
        if not known and terms.get((1, 1)):
            missing += powers([(4, terms.get((1, 3), 0.0) ** 2 / (4 * terms[1, 1]))])
        return missing

    @property
    def _offsets(self) -> VectorTerms:
        """E g - grad f."""
        return [(0, (self.stencil.moment(1) * self.law.second_moment - 1.0) * self.lines.gradient), *self._bias_terms]

    @cached_property
    def _bias_terms(self) -> VectorTerms:
        lines, terms = self.lines, []
        for j in range(3, lines.highest + 1, 2):
            m = self.stencil.moment(j)
            if abs(m) > NEGLIGIBLE:
                term = laws.odd_mean(self.law, lines.problem, lines.x, j)
                terms.append((j - 1, term.double() * (m / math.factorial(j))))
        return terms

    @cached_property
    def _second_moment_terms(self) -> dict[tuple[int, int], float]:
        known = laws.products_known(self.law, self.lines)
        if self.based and not known:
            raise ValueError(
                f"the weights of {self.stencil!r} do not sum to 0: its variance holds f(x)^2 and E[f(x) D_2], which "
                f"needs .ridges of {type(self.lines.problem).__name__}"
            )
        return {
            (a, b): factor * laws.product(self.law, self.lines, a, b)
            for a, b, factor in self._factors()
            if known or a == 1 or ((a, b) == (2, 2) and laws.quadratics_known(self.law, self.lines))
        }

    @cached_property
    def _curvature_terms(self) -> Terms:
        hessian = self.hessian
        known = laws.products_known(self.law, self.lines)

        def curved(a: int, b: int) -> float:
            if a == b == 1:
                return laws.quartic(self.law, torch.outer(self.lines.gradient, self.lines.gradient), hessian)
            return laws.curved(self.law, self.lines, hessian, a, b)

        return [(a + b - 2, f * curved(a, b)) for a, b, f in self._factors() if known or a == b == 1]

    def _factors(self) -> Iterator[tuple[int, int, float]]:
        """a, b and E[M_a M_b] / (a! b!), M_a = sum_k w_k r_k^a, twice that where a < b."""
        rule = self.stencil.quadrature(2 * HIGHEST_ORDER)
        for a in range(0 if self.based else 1, self.lines.highest + 1):
            for b in range(a, self.lines.highest + 1, 2):
                both = rule.mean(rule.power_sums(a) * rule.power_sums(b)) * (1 if a == b else 2)
                if abs(both) > NEGLIGIBLE:
                    yield a, b, both / (math.factorial(a) * math.factorial(b))


def displacement(estimator: LineEstimator, dim: int) -> float:
    """Return e = epsilon * unit(d), the displacement along u; `dim` is d.

    Raises:
        ValueError: the estimator has more orthogonal directions than d, or its epsilon is not between 1e-30 and 1e30,
            whose powers are finite numbers.
    """
    if estimator.law.orthogonal:
        require_room(estimator.n - 1, dim)
    least, most = DISPLACEMENTS
    if not least <= estimator.epsilon <= most:
        raise ValueError(
            f"epsilon is {estimator.epsilon!r}: theory has powers of it, give one from {least:g} to {most:g}"
        )
    return estimator.epsilon * estimator.law.unit(dim)


def powers(terms: Iterable[tuple[int, float]]) -> Powers:
    """Return sum c_p e^p from pairs p, c_p."""
    total = np.zeros(HIGHEST_ORDER + 1)
    for power, coefficient in terms:
        total[power // 2 + 1] += coefficient
    return total


def at(sum_of_powers: Powers, e: float | Powers) -> Powers:
    """Return sum_p c_p e^p, shaped as e."""
    square = np.square(e)
    return np.asarray(polyval(square, sum_of_powers) / square)


def beyond(sum_of_powers: Powers, power: int) -> Powers:
    """Return the part with powers above this one."""
    return np.where(np.arange(len(sum_of_powers)) > power // 2 + 1, sum_of_powers, 0.0)
