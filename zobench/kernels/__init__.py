"""Kernels K(r) of a random node r, with E[r K] = 1 and, at order q, E[r^j K] = 0 for odd 3 <= j <= q.

The estimate K(r) [f(x + e r u) - f(x - e r u)] / (2 e) u then has a bias of order e^(q+1), because the Taylor terms of
odd order up to q average out over r. `polynomial` has the kernels of the literature, under a uniform r; `design` those
whose law of r is chosen as well, which cost least.
"""

from zobench.kernels.design import chebyshev, floored, least_second_moment, on_nodes, optimal
from zobench.kernels.discrete import DiscreteKernel
from zobench.kernels.kernel import Kernel, Rule
from zobench.kernels.polynomial import PolynomialKernel, kerzoo5_as_printed, legendre, shrunk
from zobench.kernels.scale import rescaled

__all__ = [
    "DiscreteKernel", "Kernel", "PolynomialKernel", "Rule", "chebyshev", "floored", "kerzoo5_as_printed",
    "least_second_moment", "legendre", "on_nodes", "optimal", "rescaled", "shrunk",
]  # fmt: skip
