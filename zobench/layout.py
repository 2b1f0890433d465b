"""Layout: the parameters of a space as named segments, cut into blocks that are drawn one at a time."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch

CPU = torch.device("cpu")
BLOCK_SIZE = 1 << 18  # 1 MiB of float32: a block is drawn and applied while it is in cache


@dataclass(frozen=True)
class Segment:
    """One parameter: its canonical name, number of entries, and where and in which dtype its directions are drawn.

    `shape` is its own, where it has one.
    """

    name: str
    size: int
    dtype: torch.dtype = torch.float64
    device: torch.device = CPU
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class Block:
    """Entries `start` to `stop` of one segment; `offset` is where the block starts in the flattened space."""

    segment: Segment
    index: int
    start: int
    stop: int
    offset: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.stop - self.start


@dataclass(frozen=True)
class Layout:
    """The segments of a space, in canonical order. Two spaces with equal layouts draw equal directions."""

    segments: tuple[Segment, ...]

    @classmethod
    def flat(cls, dim: int, dtype: torch.dtype, device: torch.device) -> "Layout":
        """Return the layout of one anonymous vector of `dim` entries."""
        return cls((Segment("x", dim, dtype, device),))

    @cached_property
    def dim(self) -> int:
        """Number of entries over all segments."""
        return sum(segment.size for segment in self.segments)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of all segments, in order."""
        return tuple(self._cut())

    @cached_property
    def blocks_of(self) -> dict[str, tuple[Block, ...]]:
        """The blocks of each segment."""
        found: dict[str, list[Block]] = {segment.name: [] for segment in self.segments}
        for block in self.blocks:
            found[block.segment.name].append(block)
        return {name: tuple(blocks) for name, blocks in found.items()}

    def _cut(self) -> Iterator[Block]:
        offset = 0
        for segment in self.segments:
            for index, start in enumerate(range(0, segment.size, BLOCK_SIZE)):
                stop = min(start + BLOCK_SIZE, segment.size)
                yield Block(segment, index, start, stop, offset + start)
            offset += segment.size
