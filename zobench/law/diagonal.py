"""Directions that are shorter where the function is stiff."""

from dataclasses import dataclass

from torch import Tensor

from zobench.law.adaptive import AdaptiveLaw, Buffers, Past, of_weights, part
from zobench.law.independent import Gaussian
from zobench.law.law import Direction
from zobench.layout import Block, Layout
from zobench.numbers import real, store
from zobench.random.streams import Shape


@dataclass(frozen=True)
class Diagonal(AdaptiveLaw):
    """u = z / sqrt(H), z standard normal and H > 0 a diagonal: H is 1 before the first step, and each step leaves (1 -
    s) H + s H z^2 c, c = |f(x + e u) + f(x - e u) - 2 f(x)| / (2 e^2), its mean over n directions; s is `smooth`.

    E[u u^T | H] = 1 / H, so that the mean of an estimate is H^-1 grad f. A point and the step along its direction see
    the same H, that of the step before: where the step sees the one that its own losses have changed, as in the
    published code, the mean is another one, also of a quadratic f.

    H forgets in 1 / s steps: it holds the whole run. Cost: one draw of each direction a step more; no native sweep.
    Memory: H, one number a weight, in the space and in checkpoints. It needs a stencil that looks at both ends and at
    the base point. Source: HiZOO, Zhao et al. 2024, arXiv 2402.15173, smooth 1e-8; there 4 evaluations in place of 3.

    Raises:
        ValueError: smooth is not in [0, 1).
    """

    smooth: float = 1e-8

    def __post_init__(self) -> None:
        advice = "give the weight of the last curvature, from 0 to below 1"
        store(self, smooth=real("smooth", self.smooth, advice, lambda s: 0 <= s < 1))

    @property
    def held(self) -> int:
        """32."""
        return 32

    def remembered(self, slopes: Tensor, losses: Tensor, offsets: Tensor) -> Tensor:
        """Return half of the curvatures along u, as magnitudes.

        Raises:
            ValueError: the stencil has other nodes than ±epsilon and 0.
        """
        if losses.shape[-1] != 3:
            raise ValueError("Diagonal needs f(x + e u), f(x - e u) and f(x): give a ThreePointStencil")
        up, down, base = losses.unbind(-1)
        return ((up + down - 2 * base) / (2 * offsets[..., 0] ** 2)).abs()

    def begun(self, layout: Layout) -> Buffers:
        """Return ones."""
        return of_weights(layout, 1.0)

    def learn_(self, layout: Layout, past: Past) -> None:
        """Average the curvature of the step before."""
        drawn = [Gaussian().direction(past.key, i, layout, ()) for i in range(len(past.scalars))]
        for block in layout.blocks:
            square = sum(c * draw(block) ** 2 for c, draw in zip(past.scalars, drawn, strict=True)) / len(drawn)
            part(self.required(), block).mul_(1 + self.smooth * (square - 1))

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return z / sqrt(H).

        Raises:
            ValueError: the law is not bound.
        """
        plain, h = Gaussian().direction(key, index, layout, batch), self.required()

        def draw(block: Block) -> Tensor:
            return plain(block) / part(h, block).sqrt()

        return draw
