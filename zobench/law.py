"""Laws of directions: what u is in g = sum_i c_i u_i.

Every law here has mean zero, u ~ -u and E[u u^T] = I, so that c u with c = u . grad f is an unbiased estimate of grad
f. A law never holds a direction: it regenerates one block by block from (key, direction, parameter, block), in any
order.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zobench import streams
from zobench.keys import derive
from zobench.layout import CPU, Block, Layout
from zobench.streams import Shape

DenseDirection = Callable[[Block], Tensor]
Direction = Callable[[Block], Tensor | None]
"""One direction, realised: block -> its entries (*batch, block.size), or None where they are all zero."""


@dataclass(frozen=True)
class Law(ABC):
    """A law of directions u with E[u u^T] = second_moment * I.

    An offset a moves a space by a * unit(d) * u, and a coefficient c contributes c * u / unit(d). So epsilon is always
    a displacement along u: unit(d) is 1 except for Coordinate, whose epsilon is the displacement of its one coordinate.
    """

    second_moment: ClassVar[float] = 1.0

    @abstractmethod
    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return direction number `index` of `key`: a function from a block to its entries."""

    @abstractmethod
    def fourth_moment(self, dim: int) -> float:
        """Return c_d in E[|u|^2 u u^T] = c_d I: the factor of |grad f|^2 in the second moment of c u."""

    def unit(self, dim: int) -> float:
        """Return the multiple of u that one unit of epsilon displaces."""
        return 1.0


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


@dataclass(frozen=True)
class Sphere(Law):
    """Uniform on the sphere of radius sqrt(d); c_d = d. Looks over the parameters once more, for the norm."""

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a Gaussian direction scaled to norm sqrt(d)."""
        gaussian = Gaussian().direction(key, index, layout, batch)
        if len(layout.blocks) == 1:
            draw = gaussian(layout.blocks[0])
            once = _scaled(draw, _norm([draw]), layout.dim)
            return lambda block: once
        norm = _norm(gaussian(block) for block in layout.blocks)
        return lambda block: _scaled(gaussian(block), norm, layout.dim)

    def fourth_moment(self, dim: int) -> float:
        """Return d."""
        return float(dim)


def _norm(draws: Iterable[Tensor]) -> Tensor:
    return torch.stack([draw.double().square().sum(-1).cpu() for draw in draws]).sum(0).sqrt()


def _scaled(draw: Tensor, norm: Tensor, dim: int) -> Tensor:
    return draw * (math.sqrt(dim) / norm).unsqueeze(-1).to(draw)


@dataclass(frozen=True)
class Coordinate(Law):
    """u = ±sqrt(d) e_i with i uniform and a random sign; c_d = d. Epsilon displaces coordinate i by ±epsilon."""

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a direction with one entry that is not zero."""
        axis = streams.integers(derive(key, index, "axis"), batch, layout.dim)
        entry = streams.signs(derive(key, index, "sign"), batch, torch.float64, CPU) * math.sqrt(layout.dim)

        def draw(block: Block) -> Tensor | None:
            if not batch and not block.offset <= int(axis) < block.offset + block.size:
                return None
            places = torch.arange(block.offset, block.offset + block.size, device=block.segment.device)
            hit = places == axis.unsqueeze(-1).to(places.device)
            value = entry.unsqueeze(-1).to(places.device, block.segment.dtype)
            return torch.where(hit, value, torch.zeros_like(value))

        return draw

    def fourth_moment(self, dim: int) -> float:
        """Return d."""
        return float(dim)

    def unit(self, dim: int) -> float:
        """Return d^(-1/2)."""
        return 1.0 / math.sqrt(dim)


LAWS = {"gaussian": Gaussian(), "rademacher": Rademacher(), "sphere": Sphere(), "coordinate": Coordinate()}
