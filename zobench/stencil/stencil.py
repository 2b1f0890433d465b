"""The contract of a stencil."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor

from zobench.plan import LOSSES
from zobench.random.streams import Shape


class StencilRule(NamedTuple):
    """A stencil as a finite mixture: E h(r, w) = sum_q p_q h(r_q, w_q), p (Q,), nodes and weights (Q, m)."""

    probabilities: Tensor
    nodes: Tensor
    weights: Tensor

    def power_sums(self, j: int) -> Tensor:
        """Return sum_k w_k r_k^j for each of the Q outcomes."""
        return (self.weights * self.nodes**j).sum(-1)

    def mean(self, values: Tensor) -> float:
        """Return the expectation of one value for each outcome."""
        return float(self.probabilities @ values)


class Stencil(ABC):
    """Nodes r_k and weights w_k of one line, independent of its direction: c = sum_k (w_k / e) f(x + e r_k u); `asks`
    is what a plan asks at them.

    Nodes and weights are numbers without a unit: e r_k is the displacement along u. Cost: a loss evaluation for each of
    the m nodes of a direction; the base point r = 0 is evaluated once for all directions of a step.
    """

    asks: ClassVar[str] = LOSSES

    @abstractmethod
    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return nodes and weights, both float64 (*shape, m): independent for each entry of `shape`, equal for equal
        keys and shapes.
        """

    @abstractmethod
    def quadrature(self, degree: int) -> StencilRule:
        """Return a rule that integrates products of two power sums sum_k w_k r_k^a and sum_k w_k r_k^b exactly for
        a + b <= `degree`.
        """

    def moment(self, j: int) -> float:
        """Return m_j = E sum_k w_k r_k^j: m_1 multiplies grad f in the mean, m_j the term of order e^(j-1)."""
        rule = self.quadrature(j)
        return rule.mean(rule.power_sums(j))

    def slope_second_moment(self) -> float:
        """Return q = E[(sum_k w_k r_k)^2], the factor of c_d |grad f|^2 in the second moment of one direction."""
        rule = self.quadrature(2)
        return rule.mean(rule.power_sums(1) ** 2)

    def noise_second_moment(self) -> float:
        """Return E[sum_k w_k^2], the factor of d s^2 / e^2 in the second moment of one direction, s^2 the variance of
        one evaluation.
        """
        rule = self.quadrature(0)
        return rule.mean((rule.weights**2).sum(-1))
