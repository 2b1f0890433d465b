"""Directions in a random share of the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from zobench.law.independent import Gaussian, Rademacher
from zobench.law.law import Direction, Isotropic
from zobench.law.masks import Masked, masks, packed
from zobench.law.memo import memo
from zobench.layout import Block, Layout, Segment
from zobench.numbers import real, store
from zobench.random import native, streams
from zobench.random.keys import derive
from zobench.random.streams import Shape

GAUSSIAN = Gaussian()
WORDS = 1 << 32


@dataclass(frozen=True)
class RandomMask(Isotropic):
    """u = mask * v / sqrt(density), v of `law`; each weight is in the mask with probability `density`, independently of
    the others. E[u u^T] = I, and c_d = d - 1 + E[u_1^4] = d - 1 + 3 / density for normals, d - 1 + 1 / density for
    signs.

    Each direction has a mask of its own; under `Refreshed` one mask is held between refreshes, for all directions. Then
    E[u u^T | mask] is diag(mask) / density: the estimate is that of the gradient of the masked weights, times 1 /
    density.

    A weight is in the mask where a word of 32 random bits is below density 2^32. A threshold of a *normal* draw has
    another density, Phi(threshold): 0.54 for 0.1 and 0.82 for 0.9. Cost: a word and a bit a weight; the latest two
    masks are held, one bit a weight each. Source: the random masks of ZO-Bench, Zhang et al. 2024, arXiv
    2402.11592, there with 1 in place of 1 / sqrt(density), and thresholds of normals.

    Raises:
        ValueError: `law` is neither Gaussian nor Rademacher, or density is not in (0, 1].
    """

    law: Gaussian | Rademacher = GAUSSIAN
    density: float = 0.5
    refresh: int | None = field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.law, Gaussian | Rademacher):
            raise ValueError(f"law is {self.law!r}: give Gaussian() or Rademacher(), whose entries are independent")
        advice = "give the share of the weights that directions move, above 0 and at most 1"
        store(self, density=real("density", self.density, advice, lambda density: 0 < density <= 1))

    def refreshed(self, key: int) -> "RandomMask":
        """Return the law whose mask is that of `key`."""
        return replace(self, refresh=key)

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a direction of `law` that is 0 outside its masks, or outside those of the refresh."""
        masks = self._masks(derive(key, index, "mask") if self.refresh is None else self.refresh, layout, batch)
        return Masked(self.law.direction(key, index, layout, batch), masks, self.density**-0.5)

    def _masks(self, key: int, layout: Layout, batch: Shape) -> Mapping[str, Tensor]:
        limit = round(self.density * WORDS)
        if batch:
            return {s.name: _batch(_stream(key, s), s, batch, limit) for s in layout.segments}
        kept = memo(key, ("mask", self.density))
        missing = Layout(tuple(s for s in layout.segments if s not in kept))
        if missing.segments:
            found = masks(missing, lambda b: _octets(_stream(key, b.segment), b, limit))
            for s in missing.segments:
                kept.setdefault(s, found[s.name])
        return {s.name: kept[s] for s in layout.segments}

    def fourth_moment(self, dim: int) -> float:
        """Return d - 1 + E[v_1^4] / density."""
        return dim - 1 + self.law.fourth_moment(1) / self.density


def _stream(key: int, segment: Segment) -> int:
    return derive(key, segment.name, "mask")


def _octets(stream: int, block: Block, limit: int) -> Tensor:
    if block.segment.device.type == "cpu" and native.available():
        return native.at_random(stream, block.start, block.stop, limit)
    return packed(streams.words(stream, block.start, block.stop, block.segment.device) < limit)


def _batch(stream: int, segment: Segment, batch: Shape, limit: int) -> Tensor:
    words = streams.words(stream, 0, segment.size * torch.Size(batch).numel(), segment.device)
    return packed(words.view(*batch, segment.size) < limit)
