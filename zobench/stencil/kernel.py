"""The central difference at a random reach, weighed by a kernel."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.kernels import Kernel
from zobench.random.streams import Shape
from zobench.stencil.stencil import Stencil, StencilRule


@dataclass(frozen=True)
class KernelStencil(Stencil):
    """K(r) [f(x + e r u) - f(x - e r u)] / (2 e), r random: 2 evaluations a direction. m_j = E[r^j K] for odd j, 0 for
    even j. Source: KerZOO, arXiv 2505.18886.

    Raises:
        ValueError: the kernel is no Kernel.
    """

    kernel: Kernel

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, Kernel):
            raise ValueError(f"kernel is {self.kernel!r}: give one of zobench.kernels, such as legendre(3)")

    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return nodes (r, -r) and weights (K/2, -K/2), r independent for each entry of `shape`."""
        return self._mirror(*self.kernel.draw(key, shape))

    def quadrature(self, degree: int) -> StencilRule:
        """Return the kernel's rule with nodes (r, -r) and weights (K/2, -K/2)."""
        rule = self.kernel.quadrature(degree)
        return StencilRule(rule.probabilities, *self._mirror(rule.nodes, rule.values))

    def moment(self, j: int) -> float:
        """Return E[r^j K], which is 0 for even j."""
        return self.kernel.moment(j)

    @staticmethod
    def _mirror(r: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        return torch.stack((r, -r), -1), torch.stack((value / 2, -value / 2), -1)
