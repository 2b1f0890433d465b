"""Orthogonalised steps of matrices, and their twin of equal length that is only normalised."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.combination import Combination
from zobench.law.factors import Coordinates
from zobench.layout import Segment
from zobench.naming import require_known
from zobench.numbers import real, store
from zobench.rule.rule import Memoryless
from zobench.space.space import Space

NEWTON_SCHULZ, EXACT = "newton-schulz", "exact"
CONSTANTS, ITERATIONS, FLOOR = (3.4445, -4.7750, 2.0315), 5, 1e-7  # of Muon: 5 steps bring 0.002 ... 1 near 1
VECTORS = 1e-5  # 1e-7 beside the 1e-2 of matrices, in the published code


def newton_schulz(matrix: Tensor) -> Tensor:
    """Return a matrix of the same singular vectors, its singular values near 1: X <- a X + b X X^T X + c (X X^T)^2 X
    five times, from X = M / |M|, in float64.
    """
    x = matrix.double()
    x = x / (x.norm() + FLOOR)
    wide = x if x.shape[0] <= x.shape[1] else x.mT
    a, b, c = CONSTANTS
    for _ in range(ITERATIONS):
        square = wide @ wide.mT
        wide = a * wide + (b * square + c * square @ square) @ wide
    near_one: Tensor = wide if x.shape[0] <= x.shape[1] else wide.mT
    return near_one.to(matrix.dtype)


def polar(matrix: Tensor) -> Tensor:
    """Return sum_k a_k b_k^T over the singular vectors of a matrix whose singular value is not 0, up to rounding."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    kept = values > values.max() * max(matrix.shape) * torch.finfo(torch.float64).eps
    factor: Tensor = (left * kept) @ right
    return factor.to(matrix.dtype)


@dataclass(frozen=True)
class OnMatrices(Memoryless):
    """A step of its own in matrices, x <- (1 - lr_t wd) x - lr_t `vectors` g in every other tensor.

    Raises:
        ValueError: as SGD; or vectors is negative.
    """

    vectors: float = VECTORS

    def __post_init__(self) -> None:
        super().__post_init__()
        advice = "give the multiple of lr at which biases and norms step along g, 0 or more"
        store(self, vectors=real("vectors", self.vectors, advice, lambda v: v >= 0))

    @abstractmethod
    def of_matrix(self, core: Tensor) -> Tensor:
        """Return the core of the step of a matrix."""

    def apply_(self, space: Space, gradient: Combination, memory: int) -> int:
        """Take one step."""
        lr = self.rate(memory)
        space.update_whole_(gradient, self._step, -lr, lr * self.weight_decay, self.groups)
        return memory + 1

    def _step(self, segment: Segment, x: Tensor, g: Coordinates) -> Tensor:
        return self.of_matrix(g.core) if g.core.ndim == 2 else g.core * self.vectors


@dataclass(frozen=True)
class Muon(OnMatrices):
    """x <- (1 - lr_t wd) x - lr_t P O(S), P S the gradient of a matrix, P orthonormal and held for several steps: O(S)
    has the singular vectors of S and singular values near 1. Under a law that holds no part P is the identity.

    O is Muon's Newton-Schulz iteration; with polar="exact" the polar factor of S, to check it. The length of a step is
    about sqrt(r) whatever the slopes are. Where S is the sum of q random r x n matrices with n far above r and q, its
    singular values are equal up to sqrt(r / n), so that O(S) is close to S / |S|: compare with `NormalisedCore`.

    Memory is the step count. Cost: products of (r, r) and (r, n) matrices. Source: ZO-Muon 2026 and its code, there
    with 1e-7 as the rate of vectors; Jordan et al. 2024 (Muon).

    Raises:
        ValueError: as SGD; or vectors is negative.
        UnknownNameError: polar is neither "newton-schulz" nor "exact".
    """

    polar: str = NEWTON_SCHULZ

    def __post_init__(self) -> None:
        super().__post_init__()
        require_known(self.polar, (NEWTON_SCHULZ, EXACT), "polar factor:")

    def of_matrix(self, core: Tensor) -> Tensor:
        """Return O(core)."""
        return polar(core) if self.polar == EXACT else newton_schulz(core)


@dataclass(frozen=True)
class NormalisedCore(OnMatrices):
    """x <- (1 - lr_t wd) x - lr_t P sqrt(r) S / |S|, P S the gradient of a matrix: the fair twin of `Muon`. The
    subspace, the directions, their number and the length of the step are equal, sqrt(r) with r the lesser side of S;
    singular values are not made equal.

    Memory is the step count. Source: ours, as a control.

    Raises:
        ValueError: as SGD; or vectors is negative.
    """

    def of_matrix(self, core: Tensor) -> Tensor:
        """Return the core at the length of a polar factor; 0 where it is 0."""
        length = core.double().norm()
        return core if not float(length) else (core.double() * (min(core.shape) ** 0.5 / length)).to(core.dtype)
