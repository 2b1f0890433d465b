"""Matrices as products of factors: those of a direction of low rank, and what rules on whole parameters make."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zobench.law.independent import Independent, entries_together
from zobench.law.law import Direction, Law
from zobench.layout import HOW_TO_GIVE, Block, Segment
from zobench.random.native import NativeStream
from zobench.random.streams import Shape

Factors = tuple[Tensor, Tensor]


class Coordinates(NamedTuple):
    """A parameter M = L C R: its core C in the frames L (rows, a) and R (b, columns), None for the identity. L^T L and
    R R^T are I, or I on average.

    A sum of directions in the same frames has the sum of their cores, so that a rule can work on (a, b) numbers in
    place of (rows, columns). Without frames C is the parameter itself, in its shape.
    """

    core: Tensor
    left: Tensor | None = None
    right: Tensor | None = None

    @property
    def framed(self) -> bool:
        """Whether there is a frame."""
        return self.left is not None or self.right is not None

    def same_frames(self, other: "Coordinates") -> bool:
        """Return whether both have equal frames."""
        return _equal(self.left, other.left) and _equal(self.right, other.right)

    def within(self, other: "Coordinates") -> Tensor:
        """Return the core of M in the frames of another: L'^T L C R R'^T, the projection of M where these frames are
        orthonormal; what they do not span is lost.
        """
        # Products round by the place of a matrix in memory, which is another in one that a file brought back.
        core = self.core.double().clone(memory_format=torch.contiguous_format)
        for frame, there in ((self.left, False), (other.left, True)):
            if frame is not None:
                core = (frame.double().mT if there else frame.double()) @ core
        for frame, there in ((self.right, False), (other.right, True)):
            if frame is not None:
                core = core @ (frame.double().mT if there else frame.double())
        return core.to(other.core.dtype)

    def drawn(self, segment: Segment) -> "Product | Entries":
        """Return M as a direction that steps of a space go along."""
        if not self.framed:
            return Entries(self.core.to(segment.dtype).flatten())
        core = self.core if self.left is None or self.right is None else self.left @ self.core.to(self.left.dtype)
        left = core if self.left is None or self.right is not None else self.left
        right = self.core if self.right is None else self.right
        left, right = (side.to(segment.dtype).contiguous() for side in (left, right))
        return Product(left, right, segment.shape[1])


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one is other or (one.shape == other.shape and torch.equal(one, other))


@dataclass(frozen=True, eq=False)
class Entries:
    """The entries of a vector."""

    values: Tensor

    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block."""
        return self.values[block.start : block.stop]


@dataclass(frozen=True, eq=False)
class Product:
    """The entries of left right, (*batch, rows, rank) and (*batch, rank, columns)."""

    left: Tensor
    right: Tensor
    columns: int

    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block."""
        first, last = block.start // self.columns, -(-block.stop // self.columns)
        left = self.left[..., first:last, :]
        total = left[..., :1] * self.right[..., :1, :]
        for k in range(1, left.shape[-1]):  # the order of the sums and their roundings are those of the native sweep
            total += left[..., k : k + 1] * self.right[..., k : k + 1, :]
        start = block.start - first * self.columns
        return total.flatten(-2)[..., start : start + block.size]

    def native(self, segment: Segment) -> NativeStream | None:
        """Return the factors."""
        return NativeStream(factors=(self.left, self.right))


@dataclass(frozen=True, eq=False)
class FactoredDirection(ABC):
    """The entries of a block: those of left right where the segment is a matrix, or those of `plain`."""

    plain: Independent
    law: Law
    _factors: dict[str, Factors] = field(default_factory=dict, init=False)

    @abstractmethod
    def _made(self, segment: Segment) -> Factors:
        """The factors of a matrix, (*batch, rows, rank) and (*batch, rank, columns)."""

    @abstractmethod
    def coordinates(self, segment: Segment) -> Coordinates:
        """Return the direction in a matrix, its frames the part that the law holds."""

    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block.

        Raises:
            ValueError: its segment is a vector that stands for tensors whose shapes nobody gave.
        """
        if not is_matrix(block.segment, self.law):
            return self.plain(block)
        return Product(*self.factors(block.segment), block.segment.shape[1])(block)

    def native(self, segment: Segment) -> NativeStream | None:
        """Return the factors of a matrix, or what the plain normals of another segment are."""
        if not is_matrix(segment, self.law):
            return self.plain.native(segment)
        return None if self.plain.batch else NativeStream(factors=self.factors(segment))

    def factors(self, segment: Segment) -> Factors:
        """Return L (*batch, rows, rank) and R (*batch, rank, columns) of a matrix, drawn once a segment; its entries
        are those of their product.
        """
        if segment.name not in self._factors:
            made = self._made(segment)
            self._factors.setdefault(segment.name, made)  # two threads may draw: equal numbers, one is kept
        return self._factors[segment.name]

    @staticmethod
    def _made_together(directions: Sequence[Any], segments: Sequence[Segment]) -> Iterator[Sequence[Factors]]:
        """Give what `_made` does for these matrices in one after the other of these directions of one law."""
        for direction in directions:
            yield [direction._made(segment) for segment in segments]


def factors_together(directions: Sequence[Any], segments: Sequence[Segment]) -> list[list[Factors]]:
    """Return the factors of these matrices, of one dtype and device, in each direction of a law that is `factored`.
    Those of one law are drawn together, and held as `FactoredDirection.factors` does.
    """
    by_law: dict[Law, list[FactoredDirection]] = {}
    for direction in directions:
        if isinstance(direction, FactoredDirection) and any(s.name not in direction._factors for s in segments):
            by_law.setdefault(direction.law, []).append(direction)
    for alike in by_law.values():
        for direction, made in zip(alike, alike[0]._made_together(alike, segments), strict=True):
            for segment, factors in zip(segments, made, strict=True):
                direction._factors.setdefault(segment.name, factors)
    return [[direction.factors(segment) for segment in segments] for direction in directions]


def vectors_together(directions: Sequence[Direction], segments: Sequence[Segment]) -> Tensor:
    """Return the entries of all these segments, which are no matrices, of one dtype and device, side by side: a row for
    each direction of a law that is `factored`.
    """
    plain = [direction.plain for direction in directions if isinstance(direction, FactoredDirection)]
    if len(plain) == len(directions):
        return entries_together(plain, segments)
    return torch.stack([torch.cat([_entries(direction, segment) for segment in segments]) for direction in directions])


def _entries(direction: Direction, segment: Segment) -> Tensor:
    u = direction(Block(segment, 0, 0, segment.size, 0))
    return torch.zeros(segment.size, dtype=segment.dtype, device=segment.device) if u is None else u


def fourth_moments(shapes: Sequence[Shape], within: Sequence[float], squares: Sequence[float]) -> tuple[float, ...]:
    """Return c_m in E[|u|^2 (u . g)^2] = sum_m c_m |g_m|^2, the u_m of tensors of these shapes independent.

    c_m = s_m^2 (s_m^2 within_m + sum of s_l^2 d_l over the others), where E[u_m u_m^T] = s_m^2 I, and `within` is c_m
    of u_m / s_m alone.
    """
    lengths = [square * prod(s) for square, s in zip(squares, shapes, strict=True)]
    rest = [sum(lengths) - length for length in lengths]
    return tuple(square * (square * own + other) for square, own, other in zip(squares, within, rest, strict=True))


def is_matrix(segment: Segment, law: Law) -> bool:
    """Return whether a segment is a matrix.

    Raises:
        ValueError: it is a vector that stands for tensors whose shapes nobody gave.
    """
    if segment.shape == () and segment.size > 1:
        name = type(law).__name__
        raise ValueError(f"the law {name} draws by the shapes of tensors, but x is one vector: {HOW_TO_GIVE}")
    return len(segment.shape) == 2
