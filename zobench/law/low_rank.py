"""Directions of low rank in every matrix."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

from torch import Tensor

from zobench.law.independent import Gaussian, Independent
from zobench.law.law import Direction, Law
from zobench.layout import HOW_TO_GIVE, Block, Layout, Segment
from zobench.numbers import count, store
from zobench.random import streams
from zobench.random.keys import derive
from zobench.random.native import NativeStream
from zobench.random.streams import Shape

Factors = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class LowRank(Law):
    """u = U V^T / sqrt(rank) in every matrix (rows, columns), U (rows, rank) and V (columns, rank) standard normal;
    standard normal elsewhere. E[u u^T] = I, and u is not Gaussian: its entries depend on each other.

    Second moment, f locally linear: sum_m c_m |g_m|^2 over tensors, see `fourth_moments`; against d + 2 of the Gaussian
    a matrix adds 2 (rows + columns + 1) / rank. The c_m differ, so the law is not Isotropic: theory refuses it.

    Cost: rank (rows + columns) normals a matrix in place of rows * columns; they are held while a direction is in use,
    and a sweep multiplies them out. Source: LOZO, Chen et al. 2024, arXiv 2410.07698, there with 1 in place of
    1 / sqrt(rank), so that its epsilon is `epsilon` / sqrt(rank) and its learning rate `lr` / rank; U drawn anew at
    every step.

    Raises:
        ValueError: rank is no whole number from 1.
    """

    rank: int = 2

    def __post_init__(self) -> None:
        store(self, rank=count("rank", self.rank, "give the rank of a direction in a matrix, from 1"))

    @property
    def second_moment(self) -> float:
        """1."""
        return 1.0

    @property
    def by_tensor(self) -> bool:
        """True."""
        return True

    @property
    def factored(self) -> bool:
        """True."""
        return True

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a direction that draws the factors of a matrix when its first block is asked for."""
        return LowRankDirection(self.rank, Gaussian().direction(key, index, layout, batch))

    def fourth_moments(self, shapes: Iterable[Shape]) -> tuple[float, ...]:
        """Return c_m for tensors of these shapes: E[|u|^2 (u . g)^2] = sum_m c_m |g_m|^2.

        c_m = d + 2 + 2 (rows + columns + 1) / rank in a matrix, d + 2 elsewhere, for d entries in all. A matrix M has
        the law of A M B for orthogonal A and B, so that E[|M|^2 M_ij M_kl] = (c / rows columns) [ij = kl] with c =
        E|M|^4, M the direction: the mean of tr(U^T U V^T V)^2 / rank^2 under two Wishart matrices.
        """
        shapes = list(shapes)
        dim = sum(map(prod, shapes))
        return tuple(dim + 2.0 + (2.0 * (sum(s) + 1) / self.rank if len(s) == 2 else 0.0) for s in shapes)


@dataclass(frozen=True, eq=False)
class LowRankDirection:
    """The entries of a block: sum_k U_ik V_jk / sqrt(rank), or those of `plain` where the segment is no matrix."""

    rank: int
    plain: Independent
    _factors: dict[str, Factors] = field(default_factory=dict)

    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block.

        Raises:
            ValueError: its segment is a vector that stands for tensors whose shapes nobody gave.
        """
        if not _is_matrix(block.segment):
            return self.plain(block)
        shape = block.segment.shape
        first, last = block.start // shape[1], -(-block.stop // shape[1])
        left, right = self.factors(block.segment)
        left = left[..., first:last, :]
        total = left[..., :1] * right[..., :1, :]
        for k in range(1, self.rank):  # the order of the sums and their roundings are those of the native sweep
            total += left[..., k : k + 1] * right[..., k : k + 1, :]
        start = block.start - first * shape[1]
        return total.flatten(-2)[..., start : start + block.size]

    def native(self, segment: Segment) -> NativeStream | None:
        """Return the factors of a matrix, or what the plain normals of another segment are."""
        if not _is_matrix(segment):
            return self.plain.native(segment)
        return None if self.plain.batch else NativeStream(factors=self.factors(segment))

    def factors(self, segment: Segment) -> Factors:
        """Return U / sqrt(rank) (*batch, rows, rank) and V^T (*batch, rank, columns) of a matrix, drawn once a segment;
        its entries are those of their product.
        """
        if segment.name not in self._factors:
            rows, columns = segment.shape
            left = self._draw(segment, "left", (rows, self.rank)).mul_(self.rank**-0.5)
            right = self._draw(segment, "right", (self.rank, columns))
            self._factors.setdefault(segment.name, (left, right))  # two threads may draw: equal numbers, one is kept
        return self._factors[segment.name]

    def _draw(self, segment: Segment, side: str, shape: Shape) -> Tensor:
        key = derive(self.plain.key, self.plain.index, segment.name, side)
        return streams.normal(key, (*self.plain.batch, *shape), segment.dtype, segment.device)


def _is_matrix(segment: Segment) -> bool:
    if segment.shape == () and segment.size > 1:
        raise ValueError(f"the law LowRank draws by the shapes of tensors, but x is one vector: {HOW_TO_GIVE}")
    return len(segment.shape) == 2
