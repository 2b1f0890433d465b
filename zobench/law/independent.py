"""Laws with independent entries."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zobench.law.law import Isotropic
from zobench.layout import Block, Layout
from zobench.random import streams
from zobench.random.keys import derive
from zobench.random.native import NativeStream
from zobench.random.streams import Shape

STREAMS = {streams.normal: False, streams.signs: True}
"""The streams that the native sweep draws, and whether they are of signs."""


@dataclass(frozen=True)
class Independent:
    """A direction whose entries are independent, so that p(u) = prod_j p(u_j): each block is a stream of its own."""

    stream: streams.Stream
    key: int
    index: int
    batch: Shape

    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block."""
        return self.stream(self.seed(block), (*self.batch, block.size), block.segment.dtype, block.segment.device)

    def seed(self, block: Block) -> int:
        """Return the key of the block's stream."""
        return derive(self.key, self.index, block.segment.name, block.index)

    def native(self, block: Block) -> NativeStream | None:
        """Return the block's normals or signs."""
        if self.batch or self.stream not in STREAMS:
            return None
        return NativeStream(self.seed(block), STREAMS[self.stream])


@dataclass(frozen=True, eq=False)
class Derived(ABC):
    """A direction made of an independent one, entry by entry."""

    draw: Independent

    @abstractmethod
    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block."""

    @abstractmethod
    def declared(self, block: Block) -> Mapping[str, Any]:
        """Return what is made of the stream: fields of a NativeStream."""

    def native(self, block: Block) -> NativeStream | None:
        """Return the block's stream, with what is made of it."""
        stream = self.draw.native(block)
        return None if stream is None else stream._replace(**self.declared(block))


@dataclass(frozen=True)
class Gaussian(Isotropic):
    """u ~ N(0, I_d); c_d = d + 2. The law of MeZO and KerZOO."""

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Independent:
        """Return a direction of independent standard normals."""
        return Independent(streams.normal, key, index, batch)

    def fourth_moment(self, dim: int) -> float:
        """Return d + 2."""
        return dim + 2.0


@dataclass(frozen=True)
class Rademacher(Isotropic):
    """Independent signs; c_d = d. One random bit an entry."""

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Independent:
        """Return a direction of independent signs."""
        return Independent(streams.signs, key, index, batch)

    def fourth_moment(self, dim: int) -> float:
        """Return d."""
        return float(dim)
