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
from zobench.theory.lines import Lines, dimension
from zobench.theory.noise import Noise
from zobench.theory.series import Powers, Series, at, displacement, powers


def bias(estimator: LineEstimator, problem: Problem, x: Tensor) -> Tensor:
    """Return E g - grad f(x), float64 (d,): exact for polynomials of degree up to 6, otherwise up to O(epsilon^6).

    The problem must declare grad_laplacian or ridges for Gaussian and Sphere, derivative or ridges for Coordinate,
    ridges or both others for Rademacher; nothing for an order j whose m_j is 0. Cost: no loss evaluation.

    Args:
        estimator: g; its n does not matter.
        problem: f, with the derivatives named above.
        x: one point, (d,).

    Raises:
        MissingDerivativeError: the problem lacks a derivative that the law needs.
        TypeError: the estimator is not linear in the losses, its law is not Isotropic or has no theory registered, or
            the problem is no Problem.
        ValueError: x is no finite point (d,), epsilon is not between 1e-30 and 1e30, the law draws by tensor, or there
            are more orthogonal directions than d.
    """
    return series(estimator, problem, x).bias(displacement(estimator, problem.dim))


def second_moment(estimator: LineEstimator, problem: Problem, x: Tensor, noise: float | Noise = 0.0) -> float:
    """Return E|g|^2.

    Exact on polynomials of degree up to 6 that declare ridges (for Coordinate: derivative). Otherwise the terms with
    a = 1 or b = 1, and with a hessian those with a = b = 2, are exact and the rest, O(epsilon^4), is left out; without
    a hessian O(epsilon^2) for stencils that are not symmetric. `coverage` says which.

    Cost: no loss evaluation for differences; f(x) where the weights of a stencil do not sum to 0.

    Args:
        estimator: g, with its epsilon and n.
        problem: f.
        x: one point, (d,).
        noise: the standard deviation of independent noise on each evaluation, in the unit of f, or a theory.Noise.

    Raises:
        MissingDerivativeError: the problem lacks a derivative that the law needs.
        TypeError: as for `bias`.
        ValueError: as for `bias`; noise is negative; or the weights of the stencil do not sum to 0 and the problem
            declares no ridges.
    """
    one = series(estimator, problem, x)
    e = displacement(estimator, one.lines.dim)
    return float(at(spreads(one, estimator, noise) + one.mean_squares, e))


def covariance_trace(estimator: LineEstimator, problem: Problem, x: Tensor, noise: float | Noise = 0.0) -> float:
    """Return E|g - E g|^2, with E[sum_k w_k^2] d s^2 / (n e^2) for evaluation noise and, for minibatch noise of
    covariance S, (q c_d / n + (1 - 1/n) m_1^2) tr S + E[M_0^2] d x^T S x / (n e^2) if it is shared; M_0, the sum of
    the weights, is 0 for differences.

    Exactness, cost, arguments and errors are those of `second_moment`.
    """
    return spread(series(estimator, problem, x), estimator, noise)


def mse(estimator: LineEstimator, problem: Problem, x: Tensor, noise: float | Noise = 0.0) -> float:
    """Return E|g - grad f|^2 = |bias|^2 + covariance trace, exact or truncated as `coverage` says.

    Cost, arguments and errors are those of `second_moment`.
    """
    return error(series(estimator, problem, x), estimator, noise)


def coverage(estimator: LineEstimator, problem: Problem) -> str:
    """Return in words which orders of epsilon the predictions of E g and E|g|^2 hold for this estimator and problem:
    "exact, all orders", or the orders of the terms that are left out. Errors are those of `bias`.
    """
    one = series(estimator, problem, torch.zeros(dimension(problem), dtype=torch.float64, device=CPU))
    if one.exact:
        return "exact, all orders"
    if one.lines.knows("ridges"):
        return "bias to order 4; variance without O(epsilon^6)"
    return f"bias to order 4; variance without O(epsilon^{4 if one.second_order else 2})"


def series(estimator: LineEstimator, problem: Problem, x: Tensor, lines: Lines | None = None) -> Series:
    """Return the series of one direction; `lines` shares the derivatives that other estimators have asked for at x.

    Raises:
        TypeError: as for `bias`.
        ValueError: x is no finite point (d,), or the law draws by tensor.
    """
    if isinstance(estimator, LineEstimator) and not estimator.map.linear:
        raise TypeError(
            f"theory of bias and variance covers weights times losses, but {estimator.map!r} transforms "
            "these: use theory.linear_step, or sample with zobench.moments"
        )
    line = getattr(estimator, "line", None)
    if isinstance(line, LineEstimator) and estimator.linear:
        raise TypeError(
            f"theory covers one LineEstimator, but {type(estimator).__name__} has another law at each step: ask about "
            f"its .line, the first step, whose law is {line.law!r}, or sample it with zobench.moments"
        )
    if not isinstance(estimator, LineEstimator) or not estimator.linear:
        raise TypeError(
            f"theory covers the coefficients of LineEstimator, weights times losses; {type(estimator).__name__} makes "
            "its own: sample them with zobench.moments; or, if they are weights times losses, let its `linear` be True"
            + (f"; its .line is covered, {line!r}" if isinstance(line, LineEstimator) else "")
        )
    return Series(estimator.law, estimator.stencil, lines or Lines(problem, x))


def error(one: Series, estimator: LineEstimator, noise: float | Noise) -> float:
    """Return the mean squared error at the estimator's epsilon and n, from the series of one of its directions."""
    offset = one.bias(displacement(estimator, one.lines.dim))
    return float(offset @ offset) + spread(one, estimator, noise)


def spread(one: Series, estimator: LineEstimator, noise: float | Noise) -> float:
    """Return the covariance trace at the estimator's epsilon and n, from the series of one of its directions."""
    return float(at(spreads(one, estimator, noise), displacement(estimator, one.lines.dim)))


def errors(one: Series, estimator: LineEstimator, noise: float | Noise) -> Powers:
    """Return the mean squared error as a function of e, for any epsilon; `error` has smaller rounding errors."""
    return one.bias_squares + spreads(one, estimator, noise)


def spreads(one: Series, estimator: LineEstimator, noise: float | Noise) -> Powers:
    """Return the covariance trace as a function of e, for any epsilon."""
    noise, n, dim, stencil = Noise.of(noise), estimator.n, one.lines.dim, one.stencil
    of_one = one.second_moments + powers([(-2, stencil.noise_second_moment() * dim * noise.evaluation**2)])
    between = 0.0 if estimator.law.orthogonal else 1 - 1 / n
    total = (between - 1) * one.mean_squares
    covariance = noise.covariance(dim)
    if covariance is not None:
        trace, value = float(covariance.trace()), float(one.lines.x @ covariance @ one.lines.x)
        of_one += powers([(0, stencil.slope_second_moment() * one.law.fourth_moment(dim) * trace)])
        of_one += powers([(-2, one.base_second_moment * dim * value)])
        total += powers([(0, between * stencil.moment(1) ** 2 * trace)]) if noise.shared else 0.0
    return of_one / n + total
