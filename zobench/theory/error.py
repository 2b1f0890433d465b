"""Exact bias, variance and mean squared error of line estimators.

With e the displacement along u (epsilon * unit(d)), m_j = E sum_k w_k r_k^j, M_a = sum_k w_k r_k^a and D_a = D^a
f(x)[u, ..., u]:
    E g - grad f = (m_1 - 1) grad f + sum_{odd j >= 3} e^(j-1) m_j / j! E[D_j u]
    E|g|^2 = sum_{a, b} e^(a+b-2) E[M_a M_b] / (a! b!) E[D_a D_b |u|^2]        for n = 1; a, b >= 1 if sum_k w_k = 0.
Even j drop out of the bias because u ~ -u, so the forward difference has the bias of the central one. Both series end
for a polynomial. Only the law of u enters through its moments (zobench.theory.laws); only the stencil through m_j and
E[M_a M_b].

n independent directions: E|g_n|^2 = E|g|^2 / n + (1 - 1/n) |E g|^2. Directions orthogonal within a step: E|g_n|^2 =
E|g|^2 / n, since E[c_1 c_2 u_1 . u_2] = 0: the covariance trace is less by (1 - 1/n) |E g|^2. A base point that all
directions share adds its noise as (s/e)^2 E|mean u_i|^2 = d s^2 / (n e^2), as if it were not shared.
"""

import torch
from torch import Tensor

from zobench.estimator import LineEstimator
from zobench.layout import CPU
from zobench.problem import Problem
from zobench.theory.lines import Lines
from zobench.theory.noise import Noise
from zobench.theory.series import NEGLIGIBLE, Series, displacement


def bias(estimator: LineEstimator, problem: Problem, x: Tensor) -> Tensor:
    """Return E g - grad f(x), float64 (d,): exact for polynomials of degree up to 6, otherwise up to O(epsilon^6).

    Needs grad_laplacian or ridges for Gaussian and Sphere, derivative or ridges for Coordinate, ridges or both others
    for Rademacher; nothing for an order j whose m_j is 0.

    Raises:
        MissingDerivativeError: the problem lacks what the law needs.
        TypeError: the estimator is not linear in the losses, or its law is not Isotropic or has no theory registered.
    """
    return series(estimator, problem, x).bias(displacement(estimator, problem.dim))


def second_moment(estimator: LineEstimator, problem: Problem, x: Tensor, noise: float | Noise = 0.0) -> float:
    """Return E|g|^2; `noise` is the standard deviation of independent noise on each evaluation, or a theory.Noise.

    Exact on polynomials of degree up to 6 that declare ridges (for Coordinate: derivative). Otherwise the terms with
    a = 1 or b = 1 are exact and the rest, O(epsilon^2) for the forward stencil and O(epsilon^4) for symmetric ones, is
    left out; `coverage` says which. Errors as bias.
    """
    one = series(estimator, problem, x)
    mean = one.mean(displacement(estimator, problem.dim))
    return spread(one, estimator, noise) + float(mean @ mean)


def covariance_trace(estimator: LineEstimator, problem: Problem, x: Tensor, noise: float | Noise = 0.0) -> float:
    """Return E|g - E g|^2, with E[sum_k w_k^2] d s^2 / (n e^2) for evaluation noise and, for minibatch noise of
    covariance S, (q c_d / n + (1 - 1/n) m_1^2) tr S if it is shared. Exact as second_moment; errors as bias.
    """
    return spread(series(estimator, problem, x), estimator, noise)


def mse(estimator: LineEstimator, problem: Problem, x: Tensor, noise: float | Noise = 0.0) -> float:
    """Return E|g - grad f|^2 = |bias|^2 + covariance trace, exact or truncated as `coverage` says; errors as
    bias.
    """
    return error(series(estimator, problem, x), estimator, noise)


def coverage(estimator: LineEstimator, problem: Problem) -> str:
    """Return in words how much of E|g|^2 the prediction holds for this estimator and problem."""
    one = Series(
        estimator.law, estimator.stencil, Lines(problem, torch.zeros(problem.dim, dtype=torch.float64, device=CPU))
    )
    if one.exact:
        return "exact, all orders"
    if one.lines.knows("ridges"):
        return "bias to order 4; variance without O(epsilon^6)"
    symmetric = abs(estimator.stencil.moment(2)) < NEGLIGIBLE
    return f"bias to order 4; variance without O(epsilon^{4 if symmetric else 2})"


def series(estimator: LineEstimator, problem: Problem, x: Tensor, lines: Lines | None = None) -> Series:
    """Return the series of one direction; `lines` shares what other estimators have computed at this point."""
    if not isinstance(estimator, LineEstimator) or not estimator.linear:
        raise TypeError(
            f"theory covers the coefficients of LineEstimator, weights times losses; {type(estimator).__name__} makes "
            "its own: sample them with zobench.moments; or, if they are those, let its `linear` be True"
        )
    return Series(estimator.law, estimator.stencil, lines or Lines(problem, x))


def error(one: Series, estimator: LineEstimator, noise: float | Noise) -> float:
    """The mean squared error at the estimator's epsilon and n, from the series of one of its directions."""
    offset = one.bias(displacement(estimator, one.lines.dim))
    return float(offset @ offset) + spread(one, estimator, noise)


def spread(one: Series, estimator: LineEstimator, noise: float | Noise) -> float:
    """The covariance trace at the estimator's epsilon and n, from the series of one of its directions."""
    noise, n, dim = Noise.of(noise), estimator.n, one.lines.dim
    e = displacement(estimator, dim)
    mean = one.mean(e)
    of_one = one.second_moment(e) + one.stencil.noise_second_moment() * dim * (noise.evaluation / e) ** 2
    between = 0.0 if estimator.law.orthogonal else (1 - 1 / n) * float(mean @ mean)
    if noise.minibatch is not None:
        trace = float(noise.minibatch.trace())
        of_one += one.stencil.slope_second_moment() * one.law.fourth_moment(dim) * trace
        if noise.shared and not estimator.law.orthogonal:
            between += (1 - 1 / n) * one.stencil.moment(1) ** 2 * trace
    return of_one / n + between - float(mean @ mean)
