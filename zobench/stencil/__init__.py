"""Stencils: where on a line to look and how to weigh what is seen.

A stencil with nodes r_k and weights w_k, possibly random, makes the estimate sum_k (w_k / e) f(x + e r_k u) u. All its
theory follows from the moments m_j = E sum_k w_k r_k^j: m_1 = 1 makes it unbiased to first order, and every odd m_j = 0
removes the bias of order e^(j-1).
"""

from zobench.stencil.fixed import (
    CentralStencil,
    FixedStencil,
    ForwardStencil,
    OnePointStencil,
    RichardsonStencil,
    SymmetricStencil,
    ThreePointStencil,
    least_noise,
)
from zobench.stencil.kernel import KernelStencil
from zobench.stencil.slope import SlopeStencil
from zobench.stencil.stencil import Stencil, StencilRule
from zobench.stencil.telescoping import TelescopingStencil

__all__ = [
    "CentralStencil", "FixedStencil", "ForwardStencil", "KernelStencil", "OnePointStencil", "RichardsonStencil",
    "SlopeStencil", "Stencil", "StencilRule", "SymmetricStencil", "TelescopingStencil", "ThreePointStencil",
    "least_noise",
]  # fmt: skip
