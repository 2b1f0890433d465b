"""Masks of one bit a weight, and directions that are zero outside them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from zobench.law.independent import Derived
from zobench.layout import Block, Layout, Segment
from zobench.random.native import NativeStream
from zobench.threads import in_parallel

PART = 1 << 18
"""A multiple of the entries of an octet, and of the words of a counter."""
Masks = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Masked(Derived):
    """The entries of a block: scale times those of `draw` where the segment's mask has a bit, 0 elsewhere."""

    masks: Masks
    scale: float

    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block."""
        u = self.draw(block) * self.scale
        kept = _unpacked(self.masks[block.segment.name], block)
        return torch.where(kept, u, torch.zeros_like(u))

    def native(self, segment: Segment) -> NativeStream | None:
        """Return the masked stream, or None where several points have a mask each."""
        return None if self.masks[segment.name].ndim > 1 else super().native(segment)

    def declared(self, segment: Segment) -> Mapping[str, Any]:
        """Return the mask and the scale."""
        return {"mask": self.masks[segment.name], "scale": self.scale}


def masks(layout: Layout, octets: Callable[[Block], Tensor], made: Masks = MappingProxyType({})) -> Masks:
    """Return the mask of each segment: the one that is made, or the octets of its blocks of PART entries, which threads
    share.
    """
    found: dict[str, dict[int, Tensor]] = {s.name: {} for s in layout.segments if s.name not in made}
    blocks = [block for block in layout.cut(PART) if block.segment.name in found]
    waiting = iter(blocks)  # a list's iterator gives each block to one thread

    def take() -> None:
        for block in waiting:
            found[block.segment.name][block.index] = octets(block)

    in_parallel(take, len(blocks), layout.segments[0].device)
    here = {name: torch.cat([each[index] for index in sorted(each)], -1) for name, each in found.items()}
    return {**made, **here}


def packed(kept: Tensor) -> Tensor:
    """Booleans (*batch, size) as octets (*batch, (size + 7) // 8), bit j % 8 of octet j // 8, the lowest first."""
    flags = functional.pad(kept.view(torch.uint8), (0, -kept.shape[-1] % 8))
    eights = flags.view(*flags.shape[:-1], -1, 8)
    return (eights << _places(kept.device)).sum(-1, dtype=torch.uint8)


def _unpacked(octets: Tensor, block: Block) -> Tensor:
    met = octets[..., block.start // 8 : -(-block.stop // 8)]
    flags = (met.unsqueeze(-1) >> _places(octets.device)).bitwise_and_(1).flatten(-2)
    return flags[..., block.start % 8 :][..., : block.size].bool()


def _places(device: torch.device) -> Tensor:
    return torch.arange(8, dtype=torch.uint8, device=device)
