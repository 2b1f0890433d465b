"""Directions in an orthonormal subspace of every matrix."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.law.by_tensor import PartlyHeld
from zobench.law.factors import Coordinates, FactoredDirection, Factors, fourth_moments
from zobench.law.independent import Gaussian
from zobench.law.law import Direction
from zobench.law.memo import memo
from zobench.layout import Layout, Segment
from zobench.numbers import count, flag, store
from zobench.random import streams
from zobench.random.keys import derive
from zobench.random.streams import Shape


@dataclass(frozen=True, repr=False)
class Subspace(PartlyHeld):
    """u = (sqrt(rows columns) / r) U Z V^T in every matrix (rows, columns), Z (r, r) standard normal, U (rows, r) and V
    (columns, r) the orthonormal factors Q of Gaussian matrices, r the least of rank, rows and columns; standard normal
    elsewhere. E|u|^2 = d.

    Under `Refreshed` U and V are held between refreshes, the same for all directions of a step. Then E[u u^T | U, V] is
    (rows columns / r^2) times the projection M -> U U^T M V V^T: within the subspace the estimate is unbiased up to
    that factor, and the rest of the gradient is not seen. U and V are Haar, so that E[U U^T] = (r / rows) I and E[u
    u^T] = I over refreshes, and wherever the law is drawn anew at every step.

    With `right=False` V is the identity and u = sqrt(rows / r) U Z, Z (r, columns), r the least of rank and rows: the
    form of ZO-Muon. With `scaled=False` u is U Z V^T or U Z, as published there: a rank is then a hidden epsilon and
    learning rate of the matrices, and E[u u^T] is no multiple of I.

    Second moment, f locally linear: sum_m c_m |g_m|^2 over tensors, see `fourth_moments`. The law is not Isotropic.

    Cost: r^2 normals a matrix and step, the product U Z, and a sweep that multiplies rank columns; at a refresh r (rows
    + columns) normals and two QR decompositions. The frames of the latest two refreshes are held in float64, r (rows +
    columns) numbers a matrix each, without V once more in the dtype of directions; they are functions of a key, and no
    checkpoint has them. Source: SubZero, Yu et al. 2024, arXiv 2410.08989; its code fails where the rank exceeds a
    side, and folds long matrices to nearly square ones.

    Raises:
        ValueError: rank is no whole number from 1, or right or scaled no bool.
    """

    rank: int = 24
    right: bool = True
    scaled: bool = True

    def __post_init__(self) -> None:
        store(self, rank=count("rank", self.rank, "give the rank of the subspace of a matrix, from 1"))
        store(self, **{name: flag(name, getattr(self, name)) for name in ("right", "scaled")})

    def __repr__(self) -> str:
        flags = "".join(f", {name}=False" for name in ("right", "scaled") if not getattr(self, name))
        return f"Subspace(rank={self.rank}{flags})"

    @property
    def second_moment(self) -> float | None:
        """1; None where it is not scaled."""
        return 1.0 if self.scaled else None

    def core(self, shape: Shape) -> tuple[int, int]:
        """Return the shape of Z in a matrix of this shape."""
        rows, columns = shape
        rank = min(self.rank, *shape) if self.right else min(self.rank, rows)
        return rank, rank if self.right else columns

    @property
    def factored(self) -> bool:
        """True."""
        return True

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a direction that draws what it needs of a matrix when its first block is asked for."""
        return SubspaceDirection(Gaussian().direction(key, index, layout, batch), self)

    def fourth_moments(self, shapes: Iterable[Shape]) -> tuple[float, ...]:
        """Return c_m for tensors of these shapes: E[|u|^2 (u . g)^2] = sum_m c_m |g_m|^2, over refreshes.

        c_m = d + 2 rows columns / k in a matrix whose Z has k entries, d + 2 elsewhere, for d entries in all: A M B has
        the law of M for orthogonal A and B, so that it is E|M|^4 / (rows columns), and |M|^2 is rows columns / k times
        a chi-square of k degrees. Unscaled, u_m is s_m times that, s_m^2 = k / (rows columns): see `LowRank`.
        """
        shapes = list(shapes)
        shares = [math.prod(self.core(s)) / math.prod(s) if len(s) == 2 else 1.0 for s in shapes]
        within = [math.prod(s) + 2.0 / share for s, share in zip(shapes, shares, strict=True)]
        return fourth_moments(shapes, within, [1.0] * len(shapes) if self.scaled else shares)


@dataclass(frozen=True, eq=False)
class SubspaceDirection(FactoredDirection):
    """The factors (sqrt(rows columns) / r) U Z and V^T; or U and sqrt(rows / r) Z."""

    law: Subspace

    def coordinates(self, segment: Segment) -> Coordinates:
        """Return Z, scaled, in the frames U and V^T."""
        rank, _ = core = self.law.core(segment.shape)
        scale, left = self._scale(segment), self._frame(segment, "left", (segment.shape[0], rank))
        if not self.law.right:
            return Coordinates(self.factors(segment)[1], left)
        right = self._frame(segment, "right", (segment.shape[1], rank)).mT
        return Coordinates(self._middle(segment, core, torch.float64).mul_(scale), left, right)

    def _made(self, segment: Segment) -> Factors:
        rank, _ = core = self.law.core(segment.shape)
        scale, left = self._scale(segment), self._frame(segment, "left", (segment.shape[0], rank))
        if not self.law.right:
            return self._rounded(segment, left), self._middle(segment, core, segment.dtype).mul_(scale)
        right = self._frame(segment, "right", (segment.shape[1], rank))
        product = (left @ self._middle(segment, core, torch.float64)).mul_(scale)
        return product.to(segment.dtype), right.mT.to(segment.dtype).contiguous()

    def _rounded(self, segment: Segment, left: Tensor) -> Tensor:
        """A left frame in the dtype of the segment, row by row as C reads it."""
        return self._held((segment, "rounded"), lambda: left.to(segment.dtype).contiguous())

    def _scale(self, segment: Segment) -> float:
        return math.sqrt(segment.size / math.prod(self.law.core(segment.shape))) if self.law.scaled else 1.0

    def _middle(self, segment: Segment, shape: Shape, dtype: torch.dtype) -> Tensor:
        key = derive(self.plain.key, self.plain.index, segment.name, "middle")
        return streams.normal(key, (*self.plain.batch, *shape), dtype, segment.device)

    def _frame(self, segment: Segment, side: str, shape: Shape) -> Tensor:
        refresh, plain = self.law.refresh, self.plain
        names = (plain.key, plain.index) if refresh is None else (refresh,)
        key = derive(*names, segment.name, side)
        return self._held((segment, side), lambda: _orthonormal(key, (*plain.batch, *shape), segment))

    def _held(self, name: tuple[Segment, str], make: Callable[[], Tensor]) -> Tensor:
        """What `make` returns: one for all directions between two refreshes, where points have no batch."""
        if self.law.refresh is None or self.plain.batch:
            return make()
        kept = memo(self.law.refresh, self.law)
        if name not in kept:
            kept.setdefault(name, make())
        held: Tensor = kept[name]
        return held


def _orthonormal(key: int, shape: Shape, segment: Segment) -> Tensor:
    """A Haar frame, float64: Q of a Gaussian matrix with the signs that make the diagonal of R positive."""
    q, r = torch.linalg.qr(streams.normal(key, shape, torch.float64, segment.device))
    signed: Tensor = q * torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(q).unsqueeze(-2)
    return signed
