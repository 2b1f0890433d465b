"""Directions of low rank in every matrix."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

from torch import Tensor

from zobench.law.by_tensor import PartlyHeld
from zobench.law.factors import Coordinates, FactoredDirection, Factors, fourth_moments
from zobench.law.independent import Gaussian
from zobench.law.law import Direction
from zobench.layout import Layout, Segment
from zobench.numbers import count, flag, store
from zobench.random import streams
from zobench.random.keys import Names, derive_each
from zobench.random.streams import Shape


@dataclass(frozen=True, repr=False)
class LowRank(PartlyHeld):
    """u = U V^T / sqrt(rank) in every matrix (rows, columns), U (rows, rank) and V (columns, rank) standard normal;
    standard normal elsewhere. E[u u^T] = I for every rank, and u is not Gaussian: its entries depend on each other.

    Second moment, f locally linear: sum_m c_m |g_m|^2 over tensors, see `fourth_moments`; against d + 2 of the Gaussian
    a matrix adds 2 (rows + columns + 1) / rank. The c_m differ, so the law is not Isotropic: theory refuses it.

    With `scaled=False` it is U V^T, as published: rank times the variance in matrices alone, so that a rank is a hidden
    epsilon and learning rate of the matrices; E[u u^T] is then no multiple of I.

    Under `Refreshed` V is held between refreshes, one for all directions of a step: E[u u^T | V] is I in a matrix's
    columns times V V^T / rank in its rows, and I over refreshes.

    Cost: rank (rows + columns) normals a matrix in place of rows * columns; they are held while a direction is in use,
    and a sweep multiplies them out. A V that is held is drawn again at every step, so that nothing but its key is kept.
    Source: LOZO, Chen et al. 2024, arXiv 2410.07698, there unscaled.

    Raises:
        ValueError: rank is no whole number from 1, or scaled no bool.
    """

    rank: int = 2
    scaled: bool = True

    def __post_init__(self) -> None:
        store(self, rank=count("rank", self.rank, "give the rank of a direction in a matrix, from 1"))
        store(self, scaled=flag("scaled", self.scaled))

    def __repr__(self) -> str:
        return f"LowRank(rank={self.rank}{'' if self.scaled else ', scaled=False'})"

    @property
    def second_moment(self) -> float | None:
        """1; None where it is not scaled."""
        return 1.0 if self.scaled else None

    @property
    def factored(self) -> bool:
        """True."""
        return True

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a direction that draws the factors of a matrix when its first block is asked for."""
        return LowRankDirection(Gaussian().direction(key, index, layout, batch), self)

    def fourth_moments(self, shapes: Iterable[Shape]) -> tuple[float, ...]:
        """Return c_m for tensors of these shapes: E[|u|^2 (u . g)^2] = sum_m c_m |g_m|^2.

        c_m = d + 2 + 2 (rows + columns + 1) / rank in a matrix, d + 2 elsewhere, for d entries in all. A matrix M has
        the law of A M B for orthogonal A and B, so that E[|M|^2 M_ij M_kl] = (c / rows columns) [ij = kl] with c =
        E|M|^4, M the direction: the mean of tr(U^T U V^T V)^2 / rank^2 under two Wishart matrices. Unscaled, u_m is
        s_m times that, s_m^2 = rank in a matrix: c_m is s_m^2 (s_m^2 within + sum of s_l^2 d_l over the others).
        """
        shapes = list(shapes)
        within = [prod(s) + 2.0 + (2.0 * (sum(s) + 1) / self.rank if len(s) == 2 else 0.0) for s in shapes]
        squares = [float(self.rank) if len(s) == 2 and not self.scaled else 1.0 for s in shapes]
        return fourth_moments(shapes, within, squares)


@dataclass(frozen=True, eq=False)
class LowRankDirection(FactoredDirection):
    """The entries of a block: sum_k U_ik V_jk / sqrt(rank), or those of `plain` where the segment is no matrix."""

    law: LowRank

    def coordinates(self, segment: Segment) -> Coordinates:
        """Return U sqrt(columns / rank) in the frame V^T / sqrt(columns)."""
        left, right = self.factors(segment)
        return Coordinates(left * segment.shape[1] ** 0.5, right=right * segment.shape[1] ** -0.5)

    def _made(self, segment: Segment) -> Factors:
        ((factors,),) = self._made_together([self], [segment])
        return factors

    @staticmethod
    def _made_together(
        directions: Sequence["LowRankDirection"], segments: Sequence[Segment]
    ) -> Iterator[Sequence[Factors]]:
        """Give the factors in one after the other of these directions of one law; those of all are drawn at once."""
        law, batch = directions[0].law, directions[0].plain.batch
        lefts = _drawn(directions, segments, "left", [(*batch, s.shape[0], law.rank) for s in segments])
        rights = _drawn(directions, segments, "right", [(*batch, law.rank, s.shape[1]) for s in segments])
        for left, right in zip(lefts, rights, strict=True):
            yield list(zip(left, right, strict=True))


def _drawn(
    directions: Sequence[LowRankDirection], segments: Sequence[Segment], side: str, shapes: Sequence[Shape]
) -> Iterator[list[Tensor]]:
    """The factors on one side, in one direction after the other; the rows of one tensor."""
    law = directions[0].law
    refresh = None if side == "left" else law.refresh
    named: list[Names] = [(d.plain.key, d.plain.index) if refresh is None else (refresh,) for d in directions]
    keys = derive_each(named, [(segment.name, side) for segment in segments])
    sizes, (dtype, device) = list(map(prod, shapes)), (segments[0].dtype, segments[0].device)
    rows = streams.rows(streams.normals, keys, sizes, dtype, device)
    if side == "left" and law.scaled:
        rows.mul_(law.rank**-0.5)
    for row in rows:
        yield [part.view(shape) for part, shape in zip(row.split(sizes), shapes, strict=True)]
