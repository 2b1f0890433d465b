"""Stencils: where on a line to look and how to weigh what is seen.

A stencil with nodes r_k and weights w_k, possibly random, makes the estimate sum_k (w_k / e) f(x + e r_k u) u. All its
theory follows from the moments m_j = E sum_k w_k r_k^j: m_1 = 1 makes it unbiased to first order, and every odd m_j = 0
removes the bias of order e^(j-1).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from zobench.kernels import Kernel
from zobench.streams import Shape


class StencilRule(NamedTuple):
    """A stencil as a finite mixture: probabilities (Q,), nodes (Q, m), weights (Q, m)."""

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
    """Nodes r_k and weights w_k of one line, independent of its direction."""

    @abstractmethod
    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return nodes and weights, both float64 (*shape, m)."""

    @abstractmethod
    def quadrature(self, degree: int) -> StencilRule:
        """Return a rule exact for moments of total degree up to `degree` in r, also of squared sums."""

    def moment(self, j: int) -> float:
        """Return m_j = E sum_k w_k r_k^j."""
        rule = self.quadrature(j)
        return rule.mean(rule.power_sums(j))

    def slope_second_moment(self) -> float:
        """Return q = E[(sum_k w_k r_k)^2]: what multiplies |grad f|^2 in the second moment."""
        rule = self.quadrature(2)
        return rule.mean(rule.power_sums(1) ** 2)

    def noise_second_moment(self) -> float:
        """Return E[sum_k w_k^2]: what multiplies the variance of one evaluation, over epsilon^2."""
        rule = self.quadrature(0)
        return rule.mean((rule.weights**2).sum(-1))


@dataclass(frozen=True)
class FixedStencil(Stencil):
    """A stencil whose nodes are not random."""

    nodes: ClassVar[tuple[float, ...]]
    weights: ClassVar[tuple[float, ...]]

    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return the nodes and weights, expanded to `shape`."""
        nodes, weights = (torch.tensor(v, dtype=torch.float64) for v in (self.nodes, self.weights))
        return nodes.expand(*shape, -1), weights.expand(*shape, -1)

    def quadrature(self, degree: int) -> StencilRule:
        """Return the one outcome."""
        nodes, weights = self.draw(0, (1,))
        return StencilRule(torch.ones(1, dtype=torch.float64), nodes, weights)


@dataclass(frozen=True)
class ForwardStencil(FixedStencil):
    """[f(x + e u) - f(x)] / e: the base point is shared by all directions of a step, so n of them cost n + 1
    evaluations.
    """

    nodes = (1.0, 0.0)
    weights = (1.0, -1.0)


@dataclass(frozen=True)
class CentralStencil(FixedStencil):
    """[f(x + e u) - f(x - e u)] / (2 e): 2 evaluations a direction. Spall 1992 (SPSA); MeZO."""

    nodes = (1.0, -1.0)
    weights = (0.5, -0.5)


@dataclass(frozen=True)
class RichardsonStencil(FixedStencil):
    """Central differences at e and 2 e, combined 4/3 : -1/3 so that m_3 = 0: 4 evaluations a direction, bias of order
    e^4.
    """

    nodes = (1.0, -1.0, 2.0, -2.0)
    weights = (2 / 3, -2 / 3, -1 / 12, 1 / 12)


@dataclass(frozen=True)
class KernelStencil(Stencil):
    """K(r) [f(x + e r u) - f(x - e r u)] / (2 e), r random: 2 evaluations a direction. Source: KerZOO, arXiv
    2505.18886.
    """

    kernel: Kernel

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise ValueError(f"kernel is {self.kernel!r}: give one of zobench.kernels, such as legendre(3)")

    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return nodes (r, -r) and weights (K/2, -K/2), r independent for each entry of `shape`."""
        return self._mirror(*self.kernel.draw(key, shape))

    def quadrature(self, degree: int) -> StencilRule:
        """Return the kernel's own rule, mirrored."""
        rule = self.kernel.quadrature(degree)
        return StencilRule(rule.probabilities, *self._mirror(rule.nodes, rule.values))

    def moment(self, j: int) -> float:
        """Return E[r^j K] for odd j, 0 for even."""
        return self.kernel.moment(j) if j % 2 else 0.0

    @staticmethod
    def _mirror(r: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return torch.stack((r, -r), -1), torch.stack((value / 2, -value / 2), -1)
