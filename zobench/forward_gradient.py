"""Forward-gradient: the directional derivative itself, by forward-mode differentiation."""

from dataclasses import dataclass, field

from zobench.estimator import LineEstimator
from zobench.law import Gaussian, Law
from zobench.stencil import SlopeStencil, Stencil


@dataclass(frozen=True, repr=False)
class ForwardGradient(LineEstimator):
    """g = (1/n) sum_i <grad f(x), u_i> u_i: the central difference in the limit of epsilon 0, without its rounding.

    Unbiased at every x, because E[u u^T] = I; covariance as of the central difference without the terms in epsilon and
    without noise of evaluations. Needs a differentiable f, and no epsilon. Cost: one pass of forward-mode
    differentiation a direction, 3 n loss evaluations (see Plan); a tangent of the size of the parameters that it
    differentiates, held layer by layer in an InForwardSpace. Source: Baydin et al. 2022, arXiv 2202.08587.

    Raises:
        ValueError: n is not a positive integer, or the law is no Law.
    """

    law: Law = field(default_factory=Gaussian)
    stencil: Stencil = field(default=SlopeStencil(), init=False, repr=False)
    epsilon: float = field(default=1.0, init=False, repr=False)  # which cancels
    n: int = 1

    @property
    def perturbed_by(self) -> None:
        """None."""
        return None
