"""Clipping of projected gradients, so that one outlier loss does not destroy the weights."""

from typing import NamedTuple

import torch
from torch import Tensor

from zobench import Combination


class Clipped(NamedTuple):
    """A gradient with bounded coefficients, and how many of them were at the bound or beyond."""

    gradient: Combination
    clipped: int


def clip(gradient: Combination, most: float) -> Clipped:
    """Return the gradient with the projected gradient n c_i of each of the n directions of a term clipped to
    [-most, most].

    c_i = (slope along u_i) / n: a bound on the c_i themselves would be n times as wide for n directions. The estimator
    has seen all of them. One that is not finite stays so, and the step is skipped. Source: directional derivative
    clipping of QZO (Shang et al. 2025, arXiv 2505.13430).
    """
    bounds = [most / term.coefficients.numel() for term in gradient.terms]
    pairs = list(zip(gradient.terms, bounds, strict=True))
    kept = tuple(term._replace(coefficients=_bounded(term.coefficients, bound)) for term, bound in pairs)
    count = sum(int((term.coefficients.abs() >= bound).sum()) for term, bound in pairs)
    return Clipped(Combination(kept), count)


def _bounded(coefficients: Tensor, bound: float) -> Tensor:
    return torch.where(coefficients.isfinite(), coefficients.clamp(-bound, bound), coefficients)
