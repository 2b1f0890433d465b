"""The contract of a law of directions."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from zobench.layout import Block, Layout, Segment
from zobench.random.native import NativeStream
from zobench.random.streams import Shape

DenseDirection = Callable[[Block], Tensor]
"""A direction whose blocks are never None: block -> entries (*batch, block.size)."""
Direction = Callable[[Block], Tensor | None]
"""One direction, realised: block -> its entries (*batch, block.size), or None where they are all zero."""
Kept = dict[str, list[Tensor]]
"""Tensors by name that a space keeps, and checkpoints with it: snapshots, and what laws keep between steps."""


@runtime_checkable
class NativeDirection(Protocol):
    """A direction that tells the native sweep how to draw it, so that it is drawn and applied in one pass; every other
    direction is drawn by calling it.
    """

    def __call__(self, block: Block) -> Tensor | None:
        """Return the block's entries, to the bit those of `native`."""

    def native(self, segment: Segment) -> NativeStream | None:
        """Return what the segment's entries are, None where it must be called; asked of float32 segments."""


@dataclass(frozen=True)
class Law(ABC):
    """A law of directions u, with u ~ -u: what spaces and estimators need. Theory needs an `Isotropic` one.

    An offset a moves a space by a * unit(d) * u, and a coefficient c contributes c * credit / unit(d). So epsilon is
    always a displacement along u: unit(d) is 1 except for Coordinate, whose epsilon is the displacement of its one
    coordinate.
    """

    @property
    def second_moment(self) -> float | None:
        """The factor in E[credit u^T] = second_moment * I; None where the mean is no multiple of I, or not known."""
        return None

    @property
    def orthogonal(self) -> bool:
        """Whether the directions of one step are orthogonal; if so a step has at most d of them."""
        return False

    @property
    def independent(self) -> "Law":
        """The law of independent directions of which each is distributed as one of this law: a step of it has as many
        as it likes.
        """
        return self

    @property
    def by_tensor(self) -> bool:
        """Whether a direction depends on how the parameters are cut into tensors (one random number a tensor, low
        rank), so that a vector alone does not say how to draw it.
        """
        return False

    @property
    def factored(self) -> bool:
        """Whether a direction has a method `factors`: segment of a matrix (rows, columns) -> L (rows, rank) and R
        (rank, columns), whose product L R its entries are. A space may then evaluate points without forming L R.
        """
        return False

    @property
    def credit(self) -> "Law":
        """The law of the direction that a coefficient multiplies, drawn from the same key and index."""
        return self

    @abstractmethod
    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return direction number `index` of `key`: a function from a block to its entries."""

    @property
    def reads_weights(self) -> bool:
        """Whether a direction depends on the unperturbed parameters, so that a space must `bind` the law first."""
        return False

    def bind(self, layout: Layout, weights: Callable[[Block], Tensor]) -> "Law":
        """Return the law whose directions know what it read of the unperturbed parameters, block by block."""
        return self

    def recall(self, layout: Layout, weights: Callable[[Block], Tensor], kept: Kept) -> "Law":
        """Return `bind(layout, weights)`, and for a law that keeps tensors between steps what `kept` has of it: what
        spaces call.
        """
        return self.bind(layout, weights)

    @property
    def held(self) -> int:
        """Bits a weight that the law holds while it is bound: 1 of a mask."""
        return 0

    def refreshed(self, key: int) -> "Law":
        """Return the law with the part of its directions that is held for several steps drawn from `key`, the key of
        the step that drew it anew: see `zobench.Refreshed`.

        Raises:
            ValueError: no part of them can be held.
        """
        raise ValueError(
            f"every part of a direction of {self!r} is drawn anew at every step: give a law of which a part can be "
            "held, such as LowRank()"
        )

    def unit(self, dim: int) -> float:
        """Return the multiple of u that one unit of epsilon perturbs."""
        return 1.0


class Isotropic(Law):
    """A law with u ~ -u, E[credit u^T] = second_moment * I and E[|u|^2 u u^T] = c_d I, whatever the tensors and their
    weights: what theory and the formulas of errors need. The laws that are not must be sampled (`zobench.moments`).
    """

    @property
    def second_moment(self) -> float:
        """The factor in E[credit u^T] = second_moment * I."""
        return 1.0

    @abstractmethod
    def fourth_moment(self, dim: int) -> float:
        """Return c_d in E[|u|^2 u u^T] = c_d I: the factor of |grad f|^2 in the second moment of c u."""


def require_room(index: int, dim: int) -> None:
    """Raise ValueError if a step of orthogonal directions asks for more than there are."""
    if index >= dim:
        raise ValueError(
            f"n is {index + 1} or more, but in dimension {dim} no more than {dim} directions are orthogonal: lower n, "
            "or give a law of independent directions"
        )
