"""Stencils whose nodes are not random."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import torch
from scipy.optimize import root
from torch import Tensor

from zobench.kernels.design import lagrange
from zobench.layout import CPU
from zobench.numbers import count, real, store
from zobench.random.streams import Shape
from zobench.stencil.stencil import Stencil, StencilRule

DIGITS = 9  # the noise is stationary in the reaches: rounding them here changes it by 1e-18


@dataclass(frozen=True)
class FixedStencil(Stencil):
    """A stencil whose nodes are not random: c = sum_k (w_k / e) f(x + e r_k u) with constant r_k and w_k."""

    @property
    @abstractmethod
    def nodes(self) -> tuple[float, ...]:
        """r_1 ... r_m."""

    @property
    @abstractmethod
    def weights(self) -> tuple[float, ...]:
        """w_1 ... w_m."""

    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return the nodes and weights, (*shape, m) without a copy; the key is not read."""
        nodes, weights = (torch.tensor(v, dtype=torch.float64, device=CPU) for v in (self.nodes, self.weights))
        return nodes.expand(*shape, -1), weights.expand(*shape, -1)

    def quadrature(self, degree: int) -> StencilRule:
        """Return the one outcome, exact for any degree."""
        nodes, weights = self.draw(0, (1,))
        return StencilRule(torch.ones(1, dtype=torch.float64, device=CPU), nodes, weights)


@dataclass(frozen=True)
class OnePointStencil(FixedStencil):
    """f(x + e u) / e: 1 evaluation a direction. Flaxman, Kalai and McMahan 2005.

    m_1 = m_3 = 1: the bias of the central difference. The weights sum to 1, not 0, so that d f(x)^2 / e^2 is added to
    the second moment: subtract a baseline from f where one is known.
    """

    nodes = (1.0,)
    weights = (1.0,)


@dataclass(frozen=True)
class ForwardStencil(FixedStencil):
    """[f(x + e u) - f(x)] / e: the base point is shared by all directions of a step, so n of them cost n + 1
    evaluations. Nesterov and Spokoiny 2017.
    """

    nodes = (1.0, 0.0)
    weights = (1.0, -1.0)


@dataclass(frozen=True)
class CentralStencil(FixedStencil):
    """[f(x + e u) - f(x - e u)] / (2 e): 2 evaluations a direction. Spall 1992 (SPSA); MeZO."""

    nodes = (1.0, -1.0)
    weights = (0.5, -0.5)


@dataclass(frozen=True)
class ThreePointStencil(FixedStencil):
    """[f(x + e u) - f(x - e u)] / (2 e), with f(x) beside it for a coefficient map that reads the curvature: 2 n + 1
    evaluations for n directions. 1.5-SPSA.
    """

    nodes = (1.0, -1.0, 0.0)
    weights = (0.5, -0.5, 0.0)


@dataclass(frozen=True)
class RichardsonStencil(FixedStencil):
    """Central differences at e and 2 e, combined 4/3 : -1/3 so that m_3 = 0: 4 evaluations a direction, bias of order
    e^4. Richardson 1911.
    """

    nodes = (1.0, -1.0, 2.0, -2.0)
    weights = (2 / 3, -2 / 3, -1 / 12, 1 / 12)


@dataclass(frozen=True)
class SymmetricStencil(FixedStencil):
    """Central differences at reaches r_1 ... r_p, extrapolated to reach 0: nodes ±r_k with weights ±A_k / (2 r_k),
    where A_k = prod_{j != k} r_j^2 / (r_j^2 - r_k^2). Cost: 2 p evaluations a direction.

    m_1 = 1 and m_3 = ... = m_(2p-1) = 0 exactly: order 2 p - 1 from 2 p evaluations on one direction, slope second
    moment 1, E[sum w^2] = sum_k (A_k / r_k)^2 / 2. Reaches (1,) are the central difference, (1, 2) Richardson's.

    Raises:
        ValueError: reaches are not positive, finite and distinct.
    """

    reaches: tuple[float, ...]

    def __post_init__(self) -> None:
        advice = "give distinct positive |r|, such as (0.5, 1.0)"
        reaches = tuple(real("a reach", r, advice, lambda r: r > 0) for r in self.reaches)
        if not reaches or len(set(reaches)) < len(reaches):
            raise ValueError(f"reaches are {self.reaches!r}: {advice}")
        store(self, reaches=reaches)

    @cached_property
    def nodes(self) -> tuple[float, ...]:
        """(r_1, -r_1, r_2, ...)."""
        return tuple(sign * r for r in self.reaches for sign in (1.0, -1.0))

    @cached_property
    def weights(self) -> tuple[float, ...]:
        """(A_1 / (2 r_1), -A_1 / (2 r_1), ...)."""
        pairs = zip(lagrange(list(self.reaches)), self.reaches, strict=True)
        return tuple(sign * mass / (2 * r) for mass, r in pairs for sign in (1.0, -1.0))


def least_noise(evaluations: int) -> SymmetricStencil:
    """Return the SymmetricStencil with reaches in (0, 1] whose E[sum w^2] is least, at order `evaluations` - 1.

    E[sum w^2] is 1/2, 3.489 and 7.967 for 2, 4 and 6 evaluations; Richardson's at ±1/2, ±1 is 65/18 = 3.611. For 4 the
    inner reach is sqrt(z) = 0.5595 with 2 z^3 + 3 z = 1. All the evaluations lie on one direction, whose own variance
    they do not reduce: `evaluations` / 2 directions of `kernels.chebyshev` at the same order have noise q^2 / (q + 1):
    9/4 and 25/6. With `kernels.optimal` their second moment is smaller at every noise-to-gradient ratio, by a factor of
    1.19 or more at order 3, 1.44 at order 5.

    Args:
        evaluations: loss evaluations a direction, 2 p for p reaches.

    Raises:
        ValueError: `evaluations` is not an even number from 2 to 12.
    """
    advice = "give an even number from 2 to 12"
    evaluations = count("evaluations", evaluations, advice, least=2)
    if evaluations % 2 or evaluations > 12:
        raise ValueError(f"evaluations is {evaluations!r}: {advice}")
    return SymmetricStencil(_quietest(evaluations // 2))


@lru_cache
def _quietest(pairs: int) -> tuple[float, ...]:
    """Reaches of least sum_k (A_k / r_k)^2, where its gradient in log r^2 vanishes, sought from Chebyshev's."""
    order = 2 * pairs - 1

    def gradient(logs: np.ndarray) -> np.ndarray:
        x = np.exp([*logs, 0.0])
        squares = np.square(lagrange(list(np.sqrt(x)))) / x
        inverse = 1 / (x[None, :] - x[:, None] + np.diag(np.full(pairs, np.inf)))  # 1 / (x_i - x_k), [k, i]
        slopes = 2 * squares @ (-x[:, None] * inverse) + 2 * squares * x * inverse.sum(1) - squares
        return np.asarray(slopes[:-1] / squares.sum())

    start = [2 * math.log(math.sin((i + 0.5) * math.pi / order)) for i in range(pairs - 1)]
    best = root(gradient, start, tol=1e-14).x if pairs > 1 else start
    return tuple(round(math.exp(log / 2), DIGITS) for log in (*best, 0.0))
