"""The derivative along the line itself."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.plan import SLOPE
from zobench.stencil.fixed import FixedStencil
from zobench.stencil.stencil import StencilRule


class SlopeRule(StencilRule):
    """One outcome, D_1: M_1 = 1 and M_j = 0 otherwise, as of the central difference in the limit of epsilon 0."""

    def power_sums(self, j: int) -> Tensor:
        """Return [1] for j = 1, [0] otherwise."""
        return torch.full((1,), float(j == 1), dtype=torch.float64, device=CPU)


@dataclass(frozen=True)
class SlopeStencil(FixedStencil):
    """D_1 = <grad f(x), u>: of the two answers on a line the loss has weight 0 and the slope weight 1.

    There is no displacement, and so no bias: m_1 = 1 and every other m_j is 0. Noise that is added to the loss does not
    depend on x and has no slope: E[sum w^2] is 0.

    Cost: one forward pass with dual numbers a direction, which counts as 3 evaluations. Source: Baydin et al. 2022,
    arXiv 2202.08587.
    """

    asks: ClassVar[str] = SLOPE
    nodes = (0.0, 0.0)
    weights = (0.0, 1.0)

    def quadrature(self, degree: int) -> StencilRule:
        """Return the one outcome, exact for any degree."""
        return SlopeRule(*super().quadrature(degree))

    def noise_second_moment(self) -> float:
        """Return 0."""
        return 0.0
