"""Laws with independent entries."""

from dataclasses import dataclass

from torch import Tensor

from zobench import streams
from zobench.keys import derive
from zobench.law.law import DenseDirection, Direction, Law
from zobench.layout import Block, Layout
from zobench.streams import Shape


def _independent(stream: streams.Stream, key: int, index: int, batch: Shape) -> DenseDirection:
    def draw(block: Block) -> Tensor:
        segment = block.segment
        block_key = derive(key, index, segment.name, block.index)
        return stream(block_key, (*batch, block.size), segment.dtype, segment.device)

    return draw


@dataclass(frozen=True)
class Gaussian(Law):
    """u ~ N(0, I_d); c_d = d + 2. The law of MeZO and KerZOO."""

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> DenseDirection:
        """Return a direction of independent standard normals."""
        return _independent(streams.normal, key, index, batch)

    def fourth_moment(self, dim: int) -> float:
        """Return d + 2."""
        return dim + 2.0


@dataclass(frozen=True)
class Rademacher(Law):
    """Independent signs; c_d = d. One random bit an entry."""

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a direction of independent signs."""
        return _independent(streams.signs, key, index, batch)

    def fourth_moment(self, dim: int) -> float:
        """Return d."""
        return float(dim)
