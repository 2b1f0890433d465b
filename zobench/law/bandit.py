"""Directions in one block of the parameters, which a bandit chooses."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.law.adaptive import AdaptiveLaw, Buffers, Past
from zobench.law.blocks import OneBlock, as_kind, blocks_of
from zobench.layout import CPU, Layout
from zobench.numbers import real, store
from zobench.random import streams
from zobench.random.keys import derive
from zobench.random.streams import Shape

VALUES = "values"
UNSEEN = -1.0


@dataclass(frozen=True)
class BlockBandit(AdaptiveLaw, OneBlock):
    """A direction in one block of the parameters, see `OneBlock`, of probabilities p_l = explore / B + (1 - explore)
    v_l / sum v: v_l is a moving average of the magnitudes of the slopes that were seen in block l, v_l <- (1 - rate)
    v_l + rate |s|; a block that was not drawn yet counts as the largest. A slope is that of a unit normal direction,
    |g_l| times a normal, so that blocks of large gradients are drawn more often.

    A coefficient multiplies v / p_l, so that E[credit u^T] = I exactly, whatever was learned; p_l is explore / B or
    more, which bounds the weight. n directions draw n blocks with replacement, each with points of its own. Memory: one
    number a block, in the space and in checkpoints. Source: AdaLeZO, Wang et al. 2026, arXiv 2604.18264, whose code
    draws several layers for one pair of points: a layer drawn twice is there perturbed once and weighted twice. The
    form of p_l and the constants are ours.

    Raises:
        ValueError: explore is not in (0, 1], or rate not in (0, 1]; or as OneBlock.
    """

    explore: float = 0.2
    rate: float = 0.1

    def __post_init__(self) -> None:
        OneBlock.__post_init__(self)
        least = "give the share of draws in which blocks are equally likely, above 0 and at most 1"
        store(self, explore=real("explore", self.explore, least, lambda share: 0 < share <= 1))
        weight = "give the weight of the last slope, above 0 and at most 1"
        store(self, rate=real("rate", self.rate, weight, lambda rate: 0 < rate <= 1))

    @property
    def credit(self) -> "BlockBanditCredit":
        """The law of v / p_l."""
        return as_kind(BlockBanditCredit, self)

    def remembered(self, slopes: Tensor, losses: Tensor, offsets: Tensor) -> Tensor:
        """Return the magnitudes of the slopes."""
        return slopes.abs()

    def begun(self, layout: Layout) -> Buffers:
        """Return a value for each block that none was drawn of."""
        count = max(blocks_of(layout, self.by).values()) + 1
        return {VALUES: torch.full((count,), UNSEEN, dtype=torch.float64, device=CPU)}

    def learn_(self, layout: Layout, past: Past) -> None:
        """Average the slopes of the step before into the values of the blocks that it drew."""
        values = self.required()[VALUES]
        chosen = [int(self.drawn(past.key, i, len(values), ())[0]) for i in range(len(past.scalars))]
        for block, slope in zip(chosen, past.scalars, strict=True):
            seen = float(values[block])
            values[block] = slope if seen == UNSEEN else (1 - self.rate) * seen + self.rate * slope

    def probabilities(self, count: int) -> Tensor:
        """Return the probabilities of the blocks, float64 (count,)."""
        values = self.required()[VALUES]
        worth = torch.where(values == UNSEEN, values.max(), values).clamp(min=0.0)
        total = float(worth.sum())
        share = worth / total if total > 0 else torch.full_like(worth, 1.0 / count)
        return self.explore / count + (1.0 - self.explore) * share

    def drawn(self, key: int, index: int, count: int, batch: Shape) -> tuple[Tensor, Tensor]:
        """Return blocks drawn by their probabilities."""
        p = self.probabilities(count)
        at = (streams.uniform(derive(key, index, "block"), batch) + 1.0) / 2.0 * p.sum()
        chosen = torch.bucketize(at, p.cumsum(0)[:-1], right=True)
        return chosen, p[chosen]


@dataclass(frozen=True)
class BlockBanditCredit(BlockBandit):
    """u = v / p_l in the block of BlockBandit: what its coefficients multiply."""

    @property
    def credited(self) -> bool:
        """True."""
        return True

    @property
    def credit(self) -> "BlockBanditCredit":
        """Itself."""
        return self

    @property
    def shelf(self) -> str:
        """That of BlockBandit: both read the same buffers."""
        return as_kind(BlockBandit, self).shelf
