"""The noise of evaluations, as theory sees it."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.numbers import FAILURES, flag, real, store

LARGEST = 1e100  # its square over that of the smallest displacement is still a number
ROUNDING = 1e-6  # of a covariance that was computed in float32


@dataclass(frozen=True, eq=False)
class Noise:
    """Noise of the evaluations of one step: y = f(x) + (g_B - grad f) . x + s xi, xi ~ N(0, 1), g_B of minibatch B.

    Both ends of a difference see one minibatch. Exact where the minibatch changes f by a function linear in x;
    otherwise to leading order in epsilon. A stencil whose weights do not sum to 0 (one-point) sees the value
    (g_B - grad f) . x too, of variance x^T S x: x is measured from the point where the minibatches agree.

    Args:
        evaluation: s, in the unit of f.
        minibatch: S, (d, d), in the unit of the gradient, squared; None for no minibatch noise.
        shared: whether all directions of a step see one minibatch.

    Raises:
        ValueError: evaluation is negative or above 1e100, or minibatch is no covariance: a finite, symmetric, positive
            semidefinite (d, d).
    """

    evaluation: float = 0.0
    minibatch: Tensor | None = None
    shared: bool = True

    def __post_init__(self) -> None:
        advice = f"give the standard deviation of one evaluation, 0 or more and at most {LARGEST:g}"
        evaluation = real("noise", self.evaluation, advice, lambda s: 0 <= s <= LARGEST)
        minibatch = None if self.minibatch is None else _covariance(self.minibatch)
        store(self, evaluation=evaluation, minibatch=minibatch, shared=flag("shared", self.shared))

    @classmethod
    def of(cls, noise: "float | Noise") -> "Noise":
        """Return the noise; a number is the standard deviation of one evaluation.

        Raises:
            ValueError: the number is negative or above 1e100.
        """
        return noise if isinstance(noise, Noise) else cls(noise)

    def covariance(self, dim: int) -> Tensor | None:
        """Return `minibatch` for a problem of this dimension.

        Raises:
            ValueError: it is the covariance of another dimension.
        """
        if self.minibatch is not None and len(self.minibatch) != dim:
            raise ValueError(
                f"minibatch is {tuple(self.minibatch.shape)}, but the problem has dimension {dim}: give the covariance "
                f"of its gradient, ({dim}, {dim})"
            )
        return self.minibatch


def _covariance(given: Any) -> Tensor:
    advice = "give the covariance of the gradient over minibatches, a symmetric positive semidefinite (d, d)"
    try:
        matrix = torch.as_tensor(given, dtype=torch.float64, device=CPU)
    except FAILURES:
        raise ValueError(f"minibatch is {given!r:.200}: {advice}") from None
    if matrix.ndim != 2 or len(matrix) != matrix.shape[-1]:
        raise ValueError(f"minibatch has shape {tuple(matrix.shape)}: {advice}")
    if not bool(matrix.isfinite().all()):
        raise ValueError(f"minibatch is not finite: {advice}")
    allowed = ROUNDING * float(matrix.abs().max()) if len(matrix) else 0.0
    if float((matrix - matrix.mT).abs().max()) > allowed:
        raise ValueError(f"minibatch is not symmetric: {advice}")
    shifted = matrix + (allowed + 1e-300) * torch.eye(len(matrix), dtype=torch.float64, device=CPU)
    if int(torch.linalg.cholesky_ex(shifted).info):
        least = float(torch.linalg.eigvalsh(matrix)[0])
        raise ValueError(f"minibatch has an eigenvalue of {least:g}: {advice}")
    return matrix
