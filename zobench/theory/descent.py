"""What one SGD step is expected to gain: E f(x - lr g) = f - lr grad f . E g + lr^2/2 E[g^T H g] + O(lr^3).

For n directions with estimates g_i of their own,
    E[g^T H g] = E[g_1^T H g_1] / n + (1 - 1/n) E[g_1^T H g_2].
Independent directions have E[g_1^T H g_2] = E g^T H E g. The best rate is grad f . E g / E[g^T H g] and gains half the
rate times grad f . E g, so where tr H |grad f|^2 dominates, an estimator with E[(sum w r)^2] = q takes q times as many
steps as one with 1; far below the best rate q does not matter. Mean squared error does not enter.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.estimator import LineEstimator
from zobench.law import Coordinate, Isotropic
from zobench.numbers import real
from zobench.problem import Problem
from zobench.theory import laws
from zobench.theory.error import series
from zobench.theory.noise import Noise
from zobench.theory.series import Powers, Series, at, displacement, powers


def descent(estimator: LineEstimator, problem: Problem, x: Tensor, lr: float, noise: float | Noise = 0.0) -> float:
    """Return the expected decrease f(x) - E f(x - lr g) of one SGD step, up to O(lr^3); negative where it climbs.

    Exact on quadratics that declare ridges (for Coordinate: derivative). E[g^T H g] is exact on polynomials of degree
    up to 6 that do, and lacks O(epsilon^6) on other functions that do. Without them it is taken at epsilon 0, so that
    O(epsilon^2) is left out, for symmetric stencils too; the slope grad f . E g is as exact as bias. Also left out are,
    under Rademacher directions, terms of order epsilon^4 with entries of H off its diagonal, and, between directions
    that are orthogonal within a step, terms of order epsilon^2. Cost: as for `second_moment`.

    Args:
        estimator: g, with its epsilon and n.
        problem: f; it must declare hessian.
        x: one point, (d,).
        lr: the learning rate.
        noise: the standard deviation of independent noise on each evaluation, in the unit of f, or a theory.Noise.

    Raises:
        MissingDerivativeError: the problem lacks hessian, or a derivative that the law needs.
        TypeError: as for `bias`.
        ValueError: x, lr, noise or epsilon is out of range, or there are more orthogonal directions than d.
    """
    return DescentStep.of(estimator, problem, x, noise).decrease(lr)


def best_lr(estimator: LineEstimator, problem: Problem, x: Tensor, noise: float | Noise = 0.0) -> float:
    """Return the learning rate at which one SGD step is expected to gain most: grad f . E g / E[g^T H g]. Arguments,
    cost and exactness are those of `descent`.

    Raises:
        MissingDerivativeError: as for `descent`.
        TypeError: as for `bias`.
        ValueError: as for `descent`; or E[g^T H g] is not positive, so that the quadratic model gains without bound; or
            the estimate points uphill on average.
    """
    return DescentStep.of(estimator, problem, x, noise).best_lr


@dataclass(frozen=True)
class DescentStep:
    """The two numbers that decide an SGD step: slope = grad f . E g and curvature = E[g^T H g]."""

    slope: float
    curvature: float

    @classmethod
    def of(cls, estimator: LineEstimator, problem: Problem, x: Tensor, noise: float | Noise = 0.0) -> "DescentStep":
        """Return the step of this estimator at x; arguments and errors are those of `descent`."""
        return cls.along(series(estimator, problem, x), estimator, noise)

    @classmethod
    def along(cls, one: Series, estimator: LineEstimator, noise: float | Noise = 0.0) -> "DescentStep":
        """Return the step from the series of one direction."""
        e = displacement(estimator, one.lines.dim)
        return cls(float(at(one.slopes, e)), float(at(curvatures(one, estimator, Noise.of(noise)), e)))

    def decrease(self, lr: float) -> float:
        """Return lr slope - lr^2/2 curvature.

        Raises:
            ValueError: lr is not finite.
        """
        lr = real("lr", lr)
        return lr * self.slope - lr * lr / 2 * self.curvature

    @property
    def best_lr(self) -> float:
        """Slope / curvature.

        Raises:
            ValueError: slope or curvature is not positive.
        """
        if not (self.curvature > 0 and self.slope > 0):
            raise ValueError(
                f"no best learning rate: grad f . E g is {self.slope:g} and E[g^T H g] is {self.curvature:g}; both "
                "must be positive (the point is stationary, the estimate points uphill, or f is concave along it)"
            )
        return self.slope / self.curvature

    @property
    def best_decrease(self) -> float:
        """slope^2 / (2 curvature): the gain at the best rate; infinite where the quadratic model has no bound."""
        return max(self.slope, 0.0) ** 2 / (2 * self.curvature) if self.curvature > 0 else math.inf


def curvatures(one: Series, estimator: LineEstimator, noise: Noise) -> Powers:
    """Return E[g^T H g] as a function of e, for any epsilon; `one` is the series of one direction.

    Raises:
        MissingDerivativeError: the problem lacks hessian, or a derivative that the law needs.
    """
    law, n, hessian, stencil, x = one.law, estimator.n, one.hessian, one.stencil, one.lines.x
    trace, covariance = float(hessian.trace()), noise.covariance(one.lines.dim)
    of_one = one.curvatures + powers([(-2, stencil.noise_second_moment() * trace * noise.evaluation**2)])
    if covariance is not None:
        of_one += powers([(0, stencil.slope_second_moment() * laws.quartic(law, covariance, hessian))])
        of_one += powers([(-2, one.base_second_moment * trace * float(x @ covariance @ x))])
    if n == 1:
        return of_one
    of_two = one.bilinear(lambda left, right: between(law, torch.outer(left, right), hessian), one.means)
    if covariance is not None and noise.shared:
        of_two += powers([(0, stencil.moment(1) ** 2 * between(law, covariance, hessian))])
    return of_one / n + (1 - 1 / n) * of_two


def between(law: Isotropic, outer: Tensor, hessian: Tensor) -> float:
    """Return E[u_1^T G u_2 u_1^T H u_2], u_1 and u_2 two directions of one step, G = `outer` = E g (E g)^T and H =
    `hessian`, both (d, d); tr(G H) if the directions are independent.

    Orthogonal frames: d/((d-1)(d+2)) (d tr(G H) - tr G tr H), from E[q_i q_k p_j p_l] for orthonormal q, p; distinct
    coordinates: d/(d-1) sum_{i != j} G_ij H_ij.
    """
    d = len(outer)
    along = float((outer * hessian).sum())
    if not law.orthogonal:
        return along
    if isinstance(law, Coordinate):
        return d / (d - 1) * (along - float(outer.diagonal() @ hessian.diagonal()))
    return d / ((d - 1) * (d + 2)) * (d * along - float(outer.trace() * hessian.trace()))
