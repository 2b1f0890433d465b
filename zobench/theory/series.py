"""The moments of one direction's estimate as finite series in e, the displacement along u."""

import math
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor

from zobench.estimator import LineEstimator
from zobench.law import Isotropic, Law
from zobench.stencil import Stencil
from zobench.theory import laws
from zobench.theory.lines import HIGHEST_ORDER, Lines

NEGLIGIBLE = 1e-12
Terms = list[tuple[int, float]]


class Series:
    """What one law and one stencil make of one problem at one point, whatever epsilon and n: E g and E|g|^2 of one
    direction as sums of e^(j-1) m_j / j! E[D_j u] and e^(a+b-2) E[M_a M_b] / (a! b!) E[D_a D_b |u|^2].

    Products of derivatives are computed on first use and kept, so that scanning epsilon costs nothing.

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
        """Return E g - grad f, (d,)."""
        total = (self.stencil.moment(1) * self.law.second_moment - 1.0) * self.lines.gradient
        for power, term in self._bias_terms:
            total = total + e**power * term
        return total

    def mean(self, e: float) -> Tensor:
        """Return E g, (d,)."""
        return self.lines.gradient + self.bias(e)

    def second_moment(self, e: float) -> float:
        """Return E|g|^2 without noise."""
        return sum(e**power * term for power, term in self._second_moment_terms)

    def curvature(self, e: float) -> float:
        """Return E[g^T H g] without noise."""
        return sum(e**power * term for power, term in self._curvature_terms)

    @property
    def hessian(self) -> Tensor:
        """H = D^2 f(x)."""
        return self.lines.hessian("the expected descent")

    @cached_property
    def based(self) -> bool:
        """Whether the weights do not sum to 0, so that the value f(x) itself enters."""
        return float(self.stencil.quadrature(0).power_sums(0).abs().max()) > NEGLIGIBLE

    @cached_property
    def exact(self) -> bool:
        """Whether nothing is left out of the second moment."""
        return self.lines.complete and laws.products_known(self.law, self.lines)

    @cached_property
    def _bias_terms(self) -> list[tuple[int, Tensor]]:
        lines, found = self.lines, []
        for j in range(3, lines.highest + 1, 2):
            m = self.stencil.moment(j)
            if abs(m) > NEGLIGIBLE:
                term = laws.odd_mean(self.law, lines.problem, lines.x, j)
                found.append((j - 1, term * (m / math.factorial(j))))
        return found

    @cached_property
    def _second_moment_terms(self) -> Terms:
        known = laws.products_known(self.law, self.lines)
        if self.based and not known:
            raise ValueError(
                f"the weights of {self.stencil!r} do not sum to 0: its variance holds f(x)^2 and E[f(x) D_2], which "
                f"needs .ridges of {type(self.lines.problem).__name__}"
            )
        return self._terms(lambda a, b: laws.product(self.law, self.lines, a, b), () if known else (1,))

    @cached_property
    def _curvature_terms(self) -> Terms:
        hessian = self.hessian
        known = laws.products_known(self.law, self.lines)

        def curved(a: int, b: int) -> float:
            if a == b == 1:
                return laws.quartic(self.law, torch.outer(self.lines.gradient, self.lines.gradient), hessian)
            return laws.curved(self.law, self.lines, hessian, a, b)

        return self._terms(curved, () if known else (1, 1))

    def _terms(self, product: Callable[[int, int], float], known: tuple[int, ...]) -> Terms:
        """(a + b - 2, E[M_a M_b] / (a! b!) product(a, b)), M_a = sum_k w_k r_k^a; `known` restricts a, or (a, b)."""
        found = []
        for a, b, factor in self._factors():
            if (a, b)[: len(known)] == known:
                found.append((a + b - 2, factor * product(a, b)))
        return found

    def _factors(self) -> Iterator[tuple[int, int, float]]:
        rule = self.stencil.quadrature(2 * HIGHEST_ORDER)
        for a in range(0 if self.based else 1, self.lines.highest + 1):
            for b in range(a, self.lines.highest + 1, 2):
                both = rule.mean(rule.power_sums(a) * rule.power_sums(b)) * (1 if a == b else 2)
                if abs(both) > NEGLIGIBLE:
                    yield a, b, both / (math.factorial(a) * math.factorial(b))


def displacement(estimator: LineEstimator, dim: int) -> float:
    """Return e = epsilon * unit(d)."""
    return estimator.epsilon * estimator.law.unit(dim)
