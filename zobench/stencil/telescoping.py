"""Telescoping stencils: bias removed at every order at once, by one random term of a series."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.numbers import count, flag, real, store
from zobench.random import streams
from zobench.random.streams import Shape
from zobench.stencil.stencil import Stencil, StencilRule

RESOLUTION = 52  # bits of a uniform


@dataclass(frozen=True)
class TelescopingStencil(Stencil):
    """One random term of delta_0 + sum_{k=1}^K (delta_k - delta_(k-1)) = delta_K, over its probability; delta_k is the
    central difference at reach 2^-k, K = `depth`. Ma and Huang 2025, arXiv 2510.19953.

    Term k is drawn with p_k proportional to decay^k. 4 evaluations a direction; term 0 needs two points and looks at
    each twice, which halves the noise of that term.

    Bias: that of delta_K, m_j = 4^(-K (j-1) / 2) for odd j; m_3 = 9.1e-13 at depth 20. Slope second moment: 1/p_0 >= 1,
    because only term 0 has a slope, and E[sum w^2] = 1 / (4 p_0) + (5/8) sum_{k>=1} 4^k / p_k.

    With `by_parts` the series is summed by parts first: outcome k is
        delta_k + (P_k / p_k) (delta_k - delta_(k-1)),  P_k = p_0 + ... + p_(k-1),
    whose mean is delta_K too: delta_j has the factor p_j + P_j - P_(j+1) = 0 unless j = K. Now every outcome has slope
    1, and E[sum w^2] = p_0 / 4 + sum_{k>=1} (4^k P_(k+1)^2 + 4^(k-1) P_k^2) / (2 p_k) is smaller term by term: at the
    same cost and the same p both second moments are less.

    Noise: no law of k bounds it. By Cauchy and Schwarz sum_k 4^k / p_k >= (sum_k 2^k)^2 = (2^(K+1) - 2)^2, so that with
    noisy evaluations, the rounding of float32 included, unbiased to all orders (K to infinity) means infinite variance.
    At any finite depth delta_K itself, SymmetricStencil((2^-K,)), has the same mean for 2 evaluations, slope 1 and
    E[sum w^2] = 4^K / 2, less than the last term here alone: where f is locally linear the telescope gains nothing.

    Args:
        decay: p_(k+1) / p_k.
        depth: K, the number of halvings; the smallest displacement is e 2^-K.
        by_parts: whether the series is summed by parts.

    Raises:
        ValueError: `decay` is not in (0, 1), `depth` is not a whole number from 1, or the last term would never be
            drawn: decay^depth is below 2^-52.
    """

    decay: float = 0.5
    depth: int = 20
    by_parts: bool = False

    def __post_init__(self) -> None:
        decay = real("decay", self.decay, "give p_(k+1) / p_k, between 0 and 1", lambda p: 0 < p < 1)
        depth = count("depth", self.depth, "give the number of halvings, 1 or more")
        store(self, decay=decay, depth=depth, by_parts=flag("by_parts", self.by_parts))
        if self.depth * math.log2(1 / self.decay) > RESOLUTION:
            raise ValueError(
                f"depth is {self.depth}, decay {self.decay!r}: the last term would never be drawn; give a depth of "
                f"{math.floor(RESOLUTION / math.log2(1 / self.decay))} or less, or a larger decay"
            )

    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return nodes and weights, (*shape, 4), of a term drawn anew for each entry of `shape`."""
        uniform = streams.uniform(key, shape).abs_()
        term = torch.bucketize(uniform, self._rule.probabilities[:-1].cumsum(0), right=True)
        return self._rule.nodes[term], self._rule.weights[term]

    def quadrature(self, degree: int) -> StencilRule:
        """Return the depth + 1 terms: exact for any degree."""
        return self._rule

    def moment(self, j: int) -> float:
        """Return that of delta_depth: 0 for even j, 2^(-depth (j - 1)) for odd."""
        return 2.0 ** (-self.depth * (j - 1)) if j % 2 else 0.0

    @cached_property
    def _rule(self) -> StencilRule:
        k = torch.arange(self.depth + 1, dtype=torch.float64, device=CPU)
        weights = self.decay**k
        p = weights / weights.sum()
        factor = (p.cumsum(0) - p if self.by_parts else torch.ones_like(p)) / p
        inner = factor + 1.0 if self.by_parts else factor  # of delta_k; -factor of delta_(k-1)
        near, far = 2.0**-k, 2.0 ** (1 - k)
        slopes = torch.stack((inner / (2 * near), -factor / (2 * far)), -1)
        reaches = torch.stack((near, far), -1)
        reaches[0], slopes[0] = 1.0, inner[0] / 4
        return StencilRule(p, _mirror(reaches), _mirror(slopes))


def _mirror(values: Tensor) -> Tensor:
    return torch.stack((values[:, 0], -values[:, 0], values[:, 1], -values[:, 1]), -1)
