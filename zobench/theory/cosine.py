"""The cosine of one estimate with the gradient."""

import math

from zobench.estimator import LineEstimator
from zobench.law import Coordinate, Gaussian, Isotropic, Orthogonal
from zobench.numbers import count
from zobench.stencil.fixed import FixedStencil


def cosine(estimator: LineEstimator, dim: int) -> float | None:
    """Return sqrt(E cos^2) of the angle between g and grad f for linear f; None where no closed form is known.

    One direction: cos^2 = (u . grad f)^2 / (|u|^2 |grad f|^2), 1/d on average. n Gaussian directions with fixed nodes:
    with a = U grad f / |grad f| the rest of g is |a| z, z ~ N(0, I_(d-1)), so that cos^2 = |a|^2 / (|a|^2 + |z|^2) and
    E cos^2 = n / (n + d - 1). Orthogonal directions with fixed nodes, coordinates too: n / d. The ratio (E g . grad
    f)^2 / (E|g|^2 |grad f|^2), which is n / (n + d + 1), is less, since long estimates have a larger part in it.
    Differences only: the value of f at x must drop out.
    """
    law, n = estimator.law, estimator.n
    if not estimator.linear or not isinstance(law, Isotropic) or law.by_tensor or _based(estimator):
        return None
    if n == 1:
        return math.sqrt(1 / dim)
    if not isinstance(estimator.stencil, FixedStencil):
        return None
    if isinstance(law, Orthogonal | Coordinate) and law.orthogonal:
        return math.sqrt(n / dim)
    return math.sqrt(n / (n + dim - 1)) if isinstance(law, Gaussian) else None


def _based(estimator: LineEstimator) -> bool:
    return float(estimator.stencil.quadrature(0).power_sums(0).abs().max()) > 1e-12


def mean_cosine(dim: int, n: int = 1) -> float:
    """Return E cos of the angle between g and grad f for linear f, g from n Gaussian directions with fixed nodes:
    Gamma((n + 1) / 2) Gamma((n + d - 1) / 2) / (Gamma(n / 2) Gamma((n + d) / 2)); with n = 1, where spherical
    directions have the same, Gamma(d / 2) / (sqrt(pi) Gamma((d + 1) / 2)), about sqrt(2 / (pi d)).

    cos^2 = |a|^2 / (|a|^2 + |z|^2) of `cosine` has the law Beta(n / 2, (d - 1) / 2), whose half moment this is.

    Raises:
        ValueError: dim or n is no positive integer.
    """
    d, n = count("dim", dim, "give the number of dimensions, from 1"), count("n", n, "give the number of directions")
    if d == 1:
        return 1.0
    halves = math.lgamma((n + 1) / 2) - math.lgamma(n / 2) + math.lgamma((n + d - 1) / 2) - math.lgamma((n + d) / 2)
    return math.exp(halves)
