"""What a coefficient map does to a step, on a linear f under Gaussian directions.

With gradient G, slopes are s_i = |G| z_i + noise, z_i = u_i . G / |G| standard normal, and the rest of u_i is
independent of them. Let scale^2 = |G|^2 + the variance of a line's own noise, t_i = (s_i - what is shared) / scale and
rho = |G| / scale, the correlation of t_i and z_i. For mapped slopes y that permuting the lines permutes,
    E g    = rho E[y_1 t_1] G / |G|,
    E|g|^2 = [(d - rho^2) E[y_1^2] + rho^2 E[y_1^2 t_1^2]] / n + (1 - 1/n) rho^2 E[y_1 y_2 t_1 t_2].
So a map enters by four moments of y (`CoefficientMap.scores`), and noise by rho, whatever the map. Under other
isotropic laws z_i is normal up to O(1/d), and so are the moments.
"""

import math
from typing import NamedTuple

from zobench.estimator import LineEstimator
from zobench.law import Gaussian, Isotropic
from zobench.maps import Slopes
from zobench.numbers import count, real
from zobench.plan import LOSSES
from zobench.stencil.fixed import FixedStencil

NORMAL = "leading order in 1/d: directions are not Gaussian"


class LinearStep(NamedTuple):
    """E g = mean G / |G| and E|g|^2 = second_moment for a linear f with gradient G; `coverage` says what is exact."""

    mean: float
    second_moment: float
    coverage: str

    @property
    def alignment(self) -> float:
        """E[g . G] / sqrt(E|g|^2 |G|^2), which no rescaling of g changes: what decides the best step on a quadratic."""
        return self.mean / math.sqrt(self.second_moment)

    def descent(self, gradient: float, lr: float, curvature: float = 0.0) -> float:
        """Return the expected decrease lr |G| mean - lr^2/2 curvature E|g|^2 of a step of SGD where f has |G| =
        `gradient` and the Hessian is `curvature` times the identity.
        """
        return lr * gradient * self.mean - lr * lr / 2 * curvature * self.second_moment


def linear_step(
    estimator: LineEstimator, gradient: float, dim: int, noise: float = 0.0, value: float = 0.0
) -> LinearStep:
    """Return E g . G / |G| and E|g|^2 of a step on a linear f with gradient G in `dim` dimensions.

    `gradient` is |grad f|, `value` f(x), `noise` the standard deviation of independent normal noise on each evaluation.
    For the identity this is what `bias` and `second_moment` say of a linear problem.

    Raises:
        TypeError: the estimator is no LineEstimator whose nodes are fixed, or its law is not Isotropic or orthogonal.
        NotImplementedError: the map does not know its moments for these slopes.
        ValueError: a number is out of range.
    """
    law, stencil = estimator.law, estimator.stencil
    if not isinstance(law, Isotropic) or law.orthogonal or not isinstance(stencil, FixedStencil):
        raise TypeError(f"{estimator!r}: give independent directions of an isotropic law and a stencil of fixed nodes")
    gradient = real("gradient", gradient, "give the length of the gradient, above 0", lambda g: g > 0)
    dim = count("dim", dim, "give the number of dimensions, from 1")
    noise = real("noise", noise, "give the standard deviation of an evaluation's noise, 0 or more", lambda s: s >= 0)
    slopes = slopes_of(estimator, gradient, noise, real("value", value))
    scores = estimator.map.scores(estimator.n, slopes)
    if scores is None:
        raise NotImplementedError(f"the moments of {estimator.map!r} are not known for {slopes!r}: use zobench.moments")
    rho, n = gradient / slopes.scale, estimator.n
    own = (dim - rho**2) * scores.square + rho**2 * scores.fourth
    coverage = scores.coverage if isinstance(law, Gaussian) else NORMAL
    return LinearStep(rho * scores.mean, own / n + (1 - 1 / n) * rho**2 * scores.cross, coverage)


def slopes_of(estimator: LineEstimator, gradient: float, noise: float, value: float) -> Slopes:
    """Return how the slopes of a step are distributed. Nodes at 0 are the base point, which all lines share."""
    stencil, e = estimator.stencil, estimator.epsilon
    assert isinstance(stencil, FixedStencil) and stencil.asks == LOSSES
    nodes = list(zip(stencil.nodes, stencil.weights, strict=True))
    own = math.sqrt(sum(w * w for r, w in nodes if r)) * noise / e
    shared = abs(sum(w for r, w in nodes if not r)) * noise / e
    moved = sum(1 for r, _ in nodes if r)
    return Slopes(
        scale=math.hypot(gradient * stencil.moment(1), own),
        shift=value * sum(stencil.weights) / e,
        shared=shared,
        even=noise / math.sqrt(moved) / e,
        base=noise / e if len(nodes) > moved else 0.0,
        epsilon=e,
    )
