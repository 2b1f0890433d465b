"""Laws with independent entries."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zobench.law.law import Isotropic
from zobench.layout import Block, Layout, Segment
from zobench.random import streams
from zobench.random.keys import derive, derive_each
from zobench.random.native import NativeStream
from zobench.random.streams import Shape

STREAMS = {streams.normals: False, streams.signs: True}
"""The streams that the native sweep draws, and whether they are of signs."""


@dataclass(frozen=True)
class Independent:
    """A direction whose entries are independent, so that p(u) = prod_j p(u_j): entry j of a segment is entry j of the
    segment's stream, and entry j of member r of a batch is entry r size + j.
    """

    stream: streams.Stream
    key: int
    index: int
    batch: Shape

    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block."""
        segment, key = block.segment, self.stream_key(block.segment)
        size, count = segment.size, math.prod(self.batch)
        if block.size == size:
            return self.stream(key, 0, count * size, segment.dtype, segment.device).view(*self.batch, size)
        starts = range(block.start, count * size, size)
        rows = [self.stream(key, at, at + block.size, segment.dtype, segment.device) for at in starts]
        return torch.cat(rows).view(*self.batch, block.size) if self.batch else rows[0]

    def stream_key(self, segment: Segment) -> int:
        """Return the key of a segment's stream."""
        return derive(self.key, self.index, segment.name)

    def native(self, segment: Segment) -> NativeStream | None:
        """Return the segment's normals or signs."""
        if self.batch or self.stream not in STREAMS:
            return None
        return NativeStream(self.stream_key(segment), STREAMS[self.stream])


def entries_together(draws: Sequence[Independent], segments: Sequence[Segment]) -> Tensor:
    """Return the entries of all these segments, of one dtype and device, side by side: a row for each direction; the
    directions are of one stream and without a batch.
    """
    keys = derive_each([(draw.key, draw.index) for draw in draws], [(segment.name,) for segment in segments])
    sizes, (dtype, device) = [segment.size for segment in segments], (segments[0].dtype, segments[0].device)
    return streams.rows(draws[0].stream, keys, sizes, dtype, device)


@dataclass(frozen=True, eq=False)
class Derived(ABC):
    """A direction made of an independent one, entry by entry."""

    draw: Independent

    @abstractmethod
    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block."""

    @abstractmethod
    def declared(self, segment: Segment) -> Mapping[str, Any]:
        """Return what is made of the stream: fields of a NativeStream."""

    def native(self, segment: Segment) -> NativeStream | None:
        """Return the segment's stream, with what is made of it."""
        stream = self.draw.native(segment)
        return None if stream is None else stream._replace(**self.declared(segment))


@dataclass(frozen=True)
class Gaussian(Isotropic):
    """u ~ N(0, I_d); c_d = d + 2. The law of MeZO and KerZOO."""

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Independent:
        """Return a direction of independent standard normals."""
        return Independent(streams.normals, key, index, batch)

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


@dataclass(frozen=True)
class Uniform(Isotropic):
    """Independent entries, uniform on (-sqrt(3), sqrt(3)); E[u_i^4] = 9/5 and c_d = d + 4/5. Bounded, unlike normals:
    no entry moves by more than sqrt(3) epsilon.
    """

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Independent:
        """Return a direction of independent uniforms."""
        return Independent(streams.uniforms, key, index, batch)

    def fourth_moment(self, dim: int) -> float:
        """Return d + 4/5."""
        return dim + 0.8
