"""Clipping of projected gradients, so that one outlier loss does not throw the weights away."""

from collections.abc import Sequence

import torch

from zobench import Combination
from zobench.estimator import Told


def clip(told: Told, most: float) -> Told:
    """Return what was told with the projected gradient n c_i of each of its n directions clipped to [-most, most].

    c_i = (slope along u_i) / n: a bound on the c_i themselves would be n times as wide for n directions. The estimator
    has seen all of them. One that is not finite stays so, and the step is skipped. Source: directional derivative
    clipping of QZO (Shang et al. 2025, arXiv 2505.13430).
    """
    assert told.gradient is not None  # of a round that ends in one
    (term,) = told.gradient.terms
    bound = most / term.coefficients.numel()
    kept = torch.where(term.coefficients.isfinite(), term.coefficients.clamp(-bound, bound), term.coefficients)
    return told._replace(
        gradient=Combination((term._replace(coefficients=kept),)), info={**told.info, "coefficients": kept}
    )


def clipped(coefficients: Sequence[float], most: float) -> int:
    """Return how many coefficients of a step are at the bound: a journal of clipped ones says so again."""
    return sum(abs(c) >= most / len(coefficients) for c in coefficients)
