"""Directions in the smaller weights of each tensor."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from zobench.law.independent import Gaussian, Rademacher
from zobench.law.law import Direction, Kept, Law
from zobench.law.masks import Masked, Masks, masks, packed
from zobench.layout import Block, Layout, Segment
from zobench.numbers import flag, real, store
from zobench.random import native, streams
from zobench.random.keys import derive
from zobench.random.streams import Shape

SAMPLE = 1 << 16
Weights = Callable[[Block], Tensor]
GAUSSIAN = Gaussian()


@dataclass(frozen=True, repr=False)
class SmallWeights(Law):
    """u = mask * v / sqrt(share), v of `law`; the mask keeps the weights whose magnitude before the step is at most the
    `share`-quantile of their tensor's. Other weights do not move; weights of equal magnitude are kept together.

    E[u u^T] = diag(mask) / share: the estimate is that of the gradient of the kept weights, times 1 / share, so that
    |u|^2 is d on average and epsilon is comparable between laws. E[|u|^2 u u^T] = c diag(mask) / share^2 with c that
    of `law` in the dimension of the kept weights. The law is not Isotropic: theory refuses it.

    With `fixed` the thresholds are those of the weights before the first step, as published: the mask is still that of
    the weights before each step, so that its share changes as weights grow. The space keeps one number a tensor, and
    checkpoints do.

    Quantiles are those of 2^16 of a tensor's magnitudes, at places that its name tells, where it has more: of 50 %,
    49.8 % to 50.2 % are kept (one standard error). Cost: one look over the weights at every step; one bit a weight is
    held. Source: Sparse-MeZO, Liu et al. 2024, arXiv 2402.15751, there `fixed`, with 1 in place of 1 / sqrt(share), so
    that its epsilon is `epsilon` / sqrt(share) and its learning rate `lr` / share.

    Raises:
        ValueError: `law` is neither Gaussian nor Rademacher, or share is not in (0, 1]; at the draw, no space has bound
            the law.
    """

    law: Gaussian | Rademacher = GAUSSIAN
    share: float = 0.5
    fixed: bool = False
    masks: Masks | None = field(default=None, compare=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.law, Gaussian | Rademacher):
            raise ValueError(f"law is {self.law!r}: give Gaussian() or Rademacher(), whose entries are independent")
        advice = "give the share of the weights that directions move, above 0 and at most 1"
        store(self, share=real("share", self.share, advice, lambda share: 0 < share <= 1))
        store(self, fixed=flag("fixed", self.fixed))

    def __repr__(self) -> str:
        return f"SmallWeights(law={self.law!r}, share={self.share!r}{', fixed=True' if self.fixed else ''})"

    @property
    def by_tensor(self) -> bool:
        """True: a mask has one threshold a tensor."""
        return True

    @property
    def reads_weights(self) -> bool:
        """True."""
        return True

    @property
    def held(self) -> int:
        """1."""
        return 1

    def bind(self, layout: Layout, weights: Weights) -> "SmallWeights":
        """Return the law with the masks of these weights, packed eight to an octet, one a segment."""
        return self._bound(layout, weights, {})

    def recall(self, layout: Layout, weights: Weights, kept: Kept) -> "SmallWeights":
        """Return the law with the masks of these weights; where thresholds are fixed, with those that `kept` has, or
        has from now on.
        """
        return self._bound(layout, weights, kept) if self.fixed else self.bind(layout, weights)

    def _bound(self, layout: Layout, weights: Weights, kept: Kept) -> "SmallWeights":
        thresholds = {s.name: self._known(s, layout, weights, kept) for s in layout.segments}
        ask: Callable[[Mapping[str, Tensor]], Masks] | None = getattr(weights, "masks", None)
        made = ask(thresholds) if ask else {}  # those that come with the payment of a pending step
        return replace(self, masks=masks(layout, lambda b: _small(weights(b), thresholds[b.segment.name]), made))

    def _known(self, segment: Segment, layout: Layout, weights: Weights, kept: Kept) -> Tensor:
        name = f"{self!r} {segment.name}"
        if name in kept:
            return kept[name][0]
        threshold = self._threshold(_sample(segment, layout.blocks_of[segment.name], weights).abs())
        if self.fixed:
            kept[name] = [threshold]
        return threshold

    def _threshold(self, sizes: Tensor) -> Tensor:
        """The least of these magnitudes (*batch, m) that `share` of them do not exceed, (*batch, 1)."""
        rank = max(1, math.ceil(self.share * sizes.shape[-1] - 1e-9))  # 0.1 * 30 is more than 3
        wide = torch.promote_types(sizes.dtype, torch.float32)
        return sizes.to(wide).kthvalue(rank, -1, keepdim=True).values.to(sizes.dtype)

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a direction of `law` that is 0 outside the masks.

        Raises:
            ValueError: the law is not bound.
        """
        if self.masks is None:
            raise ValueError(f"{self!r} reads the weights: draw from law.bind(layout, weights), as spaces do")
        return Masked(self.law.direction(key, index, layout, batch), self.masks, self.share**-0.5)


def _sample(segment: Segment, blocks: Sequence[Block], weights: Weights) -> Tensor:
    """The weights of a segment (*batch, size), or 2^16 of them where it has more."""
    if segment.size <= SAMPLE:
        return torch.cat([weights(block) for block in blocks], -1)
    places = streams.integers(derive("small weights", segment.name), (SAMPLE,), segment.size).sort().values
    edges = np.searchsorted(places.numpy(), [*(block.start for block in blocks), segment.size]).tolist()
    parts = zip(blocks, pairwise(edges), strict=True)
    return torch.cat([weights(b)[..., (places[i:j] - b.start).to(segment.device)] for b, (i, j) in parts], -1)


def _small(weights: Tensor, threshold: Tensor) -> Tensor:
    """Octets of whether |w| <= threshold (*batch, 1), for the weights (*batch, size) of a block."""
    if native.reads(weights):
        return native.small(weights, threshold)
    return packed(weights.abs() <= threshold)
