"""Masks of one bit a weight, and directions that are zero outside them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zobench.law.independent import Derived
from zobench.layout import Block, Segment
from zobench.random.native import NativeStream

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


def packed(parts: Iterable[Tensor]) -> Tensor:
    """Booleans (*batch, size), part by part, as octets (*batch, (size + 7) // 8), bit j % 8 of octet j // 8, the lowest
    first.
    """
    octets: list[npt.NDArray[np.uint8]] = []
    flags: npt.NDArray[np.bool_] = np.empty(0, bool)
    for part in parts:
        device, seen = part.device, part.cpu().numpy()
        flags = np.concatenate((flags, seen), -1) if flags.size else seen
        whole = flags.shape[-1] // 8 * 8
        octets.append(np.packbits(flags[..., :whole], axis=-1, bitorder="little"))
        flags = flags[..., whole:]
    octets.append(np.packbits(flags, axis=-1, bitorder="little"))
    return torch.from_numpy(np.concatenate(octets, -1)).to(device)


def _unpacked(octets: Tensor, block: Block) -> Tensor:
    met = octets[..., block.start // 8 : -(-block.stop // 8)].cpu().numpy()
    flags = np.unpackbits(met, axis=-1, bitorder="little")[..., block.start % 8 :][..., : block.size]
    return torch.from_numpy(flags).view(torch.bool).to(octets.device)
