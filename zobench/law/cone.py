"""Directions in a cone round the average of the steps before."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.law.adaptive import AdaptiveLaw, Buffers, Past, of_weights, part
from zobench.law.independent import Gaussian
from zobench.law.law import DenseDirection, Direction
from zobench.layout import CPU, Block, Layout
from zobench.numbers import count, real, store
from zobench.random.streams import Shape

FIRST_BETA = 0.1
LENGTH = "/length"
"""The name of |m| among the buffers, which no segment has."""


@dataclass(frozen=True)
class Cone(AdaptiveLaw):
    """u = sin(theta) z + cos(theta) sqrt(d) m / |m|, z standard normal and m the average of the estimates before, m <-
    beta m + (1 - beta) c u, c u that of a step (its mean over n directions); z alone where m is 0. theta = pi / 2 is
    the Gaussian.

    E[u u^T | m] = sin^2 I + cos^2 d m m^T / |m|^2: with a coefficient u . g the mean is sin^2 g and d cos^2 times the
    part of g along m. So an estimate is biased towards m, by design, and |u|^2 is d on average. Given m, u and -u have
    different laws; a central difference is even in u and does not notice.

    beta is 0.1 for the first `warm` / 10 steps, then beta - (beta - 0.1) / (1 + 8 t^1.8)^3, t the share of the rest of
    the `warm` steps, then beta. Cost: one more draw of each direction a step, and a look over m. Memory: m, one number
    a weight, in the space and in checkpoints. Source: ConMeZO, 2025, arXiv 2511.02757 (theta 1.4; 1.35 in its scripts;
    beta 0.95 for RoBERTa; warm 2,000 of 20,000 steps).

    Raises:
        ValueError: theta is not in (0, pi / 2], beta not in [0, 1), or warm no whole number from 0.
    """

    theta: float = 1.35
    beta: float = 0.99
    warm: int = 2000

    def __post_init__(self) -> None:
        angle = "give the angle between a direction and the average, above 0 and at most pi / 2"
        store(self, theta=real("theta", self.theta, angle, lambda theta: 0 < theta <= math.pi / 2))
        share = "give the share of the average that a step leaves, from 0 to below 1"
        store(self, beta=real("beta", self.beta, share, lambda beta: 0 <= beta < 1))
        store(self, warm=count("warm", self.warm, "give the steps until beta, 0 or more", least=0))

    @property
    def held(self) -> int:
        """32."""
        return 32

    def beta_at(self, step: int) -> float:
        """Return the share of the average that the step of this number leaves, counted from 1."""
        start = self.warm // 10
        if step >= self.warm:
            return self.beta
        if step <= start:
            return min(FIRST_BETA, self.beta)
        least = min(FIRST_BETA, self.beta)
        share = float((step - start) / (self.warm - start)) ** 1.8
        return float(self.beta - (self.beta - least) / (1 + 8 * share) ** 3)

    def remembered(self, slopes: Tensor, losses: Tensor, offsets: Tensor) -> Tensor:
        """Return the slopes."""
        return slopes

    def begun(self, layout: Layout) -> Buffers:
        """Return zeros."""
        return {**of_weights(layout, 0.0), LENGTH: torch.zeros((), dtype=torch.float64, device=CPU)}

    def learn_(self, layout: Layout, past: Past) -> None:
        """Average the estimate of the step before."""
        beta, m, square = self.beta_at(past.step), self.required(), 0.0
        drawn = [self._draw(past.key, i, layout, ()) for i in range(len(past.scalars))]
        for block in layout.blocks:
            average = part(m, block)
            estimate = torch.zeros_like(average)
            for c, draw in zip(past.scalars, drawn, strict=True):
                estimate.add_(draw(block), alpha=c / len(drawn))  # which reads the average of the step before
            average.mul_(beta).add_(estimate, alpha=1 - beta)
            square += float(average.double().square().sum())
        m[LENGTH].fill_(math.sqrt(square))

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a direction in the cone.

        Raises:
            ValueError: the law is not bound.
        """
        return self._draw(key, index, layout, batch)

    def _draw(self, key: int, index: int, layout: Layout, batch: Shape) -> DenseDirection:
        plain, m = Gaussian().direction(key, index, layout, batch), self.required()
        length = float(m[LENGTH])
        if not length:
            return plain
        across, along = math.sin(self.theta), math.cos(self.theta) * math.sqrt(layout.dim) / length

        def draw(block: Block) -> Tensor:
            return torch.add(plain(block) * across, part(m, block), alpha=along)

        return draw
