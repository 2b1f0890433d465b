"""Exact bias, variance and mean squared error of line estimators.

With e the displacement along u (epsilon * unit(d)), m_j = E sum_k w_k r_k^j, M_a = sum_k w_k r_k^a and D_a = D^a
f(x)[u, ..., u]:
    E g - grad f = (m_1 - 1) grad f + sum_{odd j >= 3} e^(j-1) m_j / j! E[D_j u]
    E|g|^2 = sum_{a, b >= 1} e^(a+b-2) E[M_a M_b] / (a! b!) E[D_a D_b |u|^2]        for n = 1 and sum_k w_k = 0.
Even j drop out of the bias because u ~ -u, so the forward difference has the bias of the central one. Both series end
for a polynomial. Only the law of u enters through its moments, one function for each law below; only the stencil
through m_j and E[M_a M_b].
"""

import math
from dataclasses import replace
from functools import singledispatch
from typing import Any

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from zobench.estimator import LineEstimator
from zobench.law import Coordinate, Gaussian, Law, Rademacher, Sphere
from zobench.problem import Problem, demand

HIGHEST_ORDER = 6
NEGLIGIBLE = 1e-12


def bias(estimator: LineEstimator, problem: Problem, x: Tensor) -> Tensor:
    """Return E g - grad f(x), float64 (d,): exact for polynomials of degree up to 6, otherwise up to O(epsilon^6).

    Needs grad_laplacian for Gaussian and Sphere, derivative for Coordinate, both for Rademacher; nothing for an order j
    whose m_j is 0.

    Raises:
        MissingDerivativeError: the problem lacks what the law needs.
        TypeError: the estimator is no LineEstimator, or no theory is registered for its law.
    """
    _require_line(estimator)
    gradient = problem.gradient(x).double()
    total = (estimator.stencil.moment(1) - 1.0) * gradient
    e = _displacement(estimator, x)
    for j in range(3, _highest(problem) + 1, 2):
        m = estimator.stencil.moment(j)
        if abs(m) > NEGLIGIBLE:
            total = total + e ** (j - 1) * m / math.factorial(j) * odd_mean(estimator.law, problem, x, j)
    return total


def second_moment(estimator: LineEstimator, problem: Problem, x: Tensor, noise: float = 0.0) -> float:
    """Return E|g|^2 of one estimate; `noise` is the standard deviation of independent noise on each evaluation.

    Exact for Gaussian and Sphere where the problem declares line_product, and for Coordinate, on polynomials of degree
    up to 6. Otherwise the terms with a = 1 or b = 1 are exact and the rest, O(epsilon^2) for the forward stencil and
    O(epsilon^4) for symmetric ones, is left out.
    """
    mean = bias(estimator, problem, x) + problem.gradient(x)
    return covariance_trace(estimator, problem, x, noise) + float(mean @ mean)


def covariance_trace(estimator: LineEstimator, problem: Problem, x: Tensor, noise: float = 0.0) -> float:
    """Return E|g - E g|^2: 1/n of that of one direction, with E[sum_k w_k^2] d noise^2 / e^2 for the noise. Exact as
    second_moment.
    """
    _require_line(estimator)
    mean = bias(estimator, problem, x) + problem.gradient(x)
    one_direction = _noiseless_second_moment(estimator, problem, x) - float(mean @ mean)
    noisy = estimator.stencil.noise_second_moment() * problem.dim * (noise / _displacement(estimator, x)) ** 2
    return (one_direction + noisy) / estimator.n


def mse(estimator: LineEstimator, problem: Problem, x: Tensor, noise: float = 0.0) -> float:
    """Return E|g - grad f|^2 = |bias|^2 + covariance trace, exact or truncated as `coverage` says."""
    offset = bias(estimator, problem, x)
    return float(offset @ offset) + covariance_trace(estimator, problem, x, noise)


def best_epsilon(estimator: LineEstimator, problem: Problem, x: Tensor, noise: float) -> float:
    """Return the epsilon in [1e-8, 1e2] that minimises the predicted mean squared error at this noise.

    Where `coverage` is not exact it is trustworthy only if the result is small enough for the terms that are left out.

    Raises:
        ValueError: noise is not positive: in exact arithmetic the error then falls, or stays, as epsilon goes to 0.
    """
    if not noise > 0:
        raise ValueError(f"noise is {noise!r}: without noise the smallest epsilon is the best, in exact arithmetic")

    def error(log_epsilon: float) -> float:
        value = mse(replace(estimator, epsilon=math.exp(log_epsilon)), problem, x, noise)
        return math.log(value) if value > 0 else math.inf  # a truncated series may fall below 0 far outside its range

    bounds = (math.log(1e-8), math.log(1e2))
    grid = torch.linspace(*bounds, 93).tolist()
    start = min(grid, key=error)
    around = (max(start - 0.5, bounds[0]), min(start + 0.5, bounds[1]))
    found = minimize_scalar(error, bounds=around, method="bounded", options={"xatol": 1e-6})
    return float(math.exp(found.x))


def coverage(estimator: LineEstimator, problem: Problem) -> str:
    """Return in words how much of E|g|^2 the prediction holds for this estimator and problem."""
    polynomial = getattr(problem, "degree", None) is not None and problem.degree <= HIGHEST_ORDER  # type: ignore[attr-defined]
    if polynomial and _products_known(estimator.law, problem):
        return "exact, all orders"
    symmetric = abs(estimator.stencil.moment(2)) < NEGLIGIBLE
    return f"bias to order 4; variance without O(epsilon^{4 if symmetric else 2})"


def _require_line(estimator: Any) -> None:
    if not isinstance(estimator, LineEstimator):
        raise TypeError(f"theory covers LineEstimator, not {type(estimator).__name__}")


def _displacement(estimator: LineEstimator, x: Tensor) -> float:
    return estimator.epsilon * estimator.law.unit(x.shape[-1])


def _highest(problem: Problem) -> int:
    degree = getattr(problem, "degree", None)
    return HIGHEST_ORDER if degree is None else min(int(degree), HIGHEST_ORDER)


def _noiseless_second_moment(estimator: LineEstimator, problem: Problem, x: Tensor) -> float:
    e, law, total = _displacement(estimator, x), estimator.law, 0.0
    known = _products_known(law, problem)
    orders = range(1, _highest(problem) + 1)
    rule = estimator.stencil.quadrature(2 * HIGHEST_ORDER)
    if float(rule.power_sums(0).abs().max()) > NEGLIGIBLE:
        raise ValueError(
            f"the weights of {estimator.stencil!r} do not sum to 0: its variance holds f(x)^2, which is not covered"
        )
    for a in orders:
        for b in orders:
            factor = rule.mean(rule.power_sums(a) * rule.power_sums(b)) / (math.factorial(a) * math.factorial(b))
            if (a + b) % 2 or abs(factor) < NEGLIGIBLE or not (known or min(a, b) == 1):
                continue
            total += e ** (a + b - 2) * factor * _product(law, problem, x, min(a, b), max(a, b))
    return total


def _product(law: Law, problem: Problem, x: Tensor, a: int, b: int) -> float:
    """E[D_a D_b |u|^2], a <= b: through E[D_b u] where a = 1, which every law knows."""
    if a == b == 1:
        gradient = problem.gradient(x).double()
        return law.fourth_moment(problem.dim) * float(gradient @ gradient)
    return weighted_product(law, problem, x, a, b)


def _products_known(law: Law, problem: Problem) -> bool:
    name = "derivative" if isinstance(law, Coordinate) else "line_product"
    return not isinstance(law, Rademacher) and getattr(problem, name, None) is not None


@singledispatch
def odd_mean(law: Law, problem: Problem, x: Tensor, j: int) -> Tensor:
    """Return E[D^j f(x)[u^j] u], (d,), for odd j."""
    raise TypeError(f"no theory of the law {law!r}: register theory.odd_mean for {type(law).__name__}")


@odd_mean.register
def _(law: Gaussian, problem: Problem, x: Tensor, j: int) -> Tensor:
    k = (j - 1) // 2
    grad_laplacian = demand(problem, "grad_laplacian", f"the bias of order epsilon^{j - 1} under {law!r}")
    gradient: Tensor = grad_laplacian(x, order=k)
    return gradient * (0.5**k * math.factorial(j) / math.factorial(k))


@odd_mean.register
def _(law: Sphere, problem: Problem, x: Tensor, j: int) -> Tensor:
    gaussian: Tensor = odd_mean(Gaussian(), problem, x, j)
    return _radial(problem.dim, j + 1) * gaussian


@odd_mean.register
def _(law: Coordinate, problem: Problem, x: Tensor, j: int) -> Tensor:
    return float(problem.dim ** ((j - 1) / 2)) * _axis_derivatives(law, problem, x, j)


@odd_mean.register
def _(law: Rademacher, problem: Problem, x: Tensor, j: int) -> Tensor:
    """3 grad Lap f - 2 f_iii, and the coefficient of e^4 / 120 in tanh(e d_i)/e prod_j cosh(e d_j) f, d_i a partial
    derivative.
    """
    full, axis = odd_mean(Gaussian(), problem, x, j), _axis_derivatives(law, problem, x, j)
    if j == 3:
        return full - 2 * axis
    third_second, first_fourth = _mixed_fifth(problem, x, axis)
    return full - 10 * first_fourth - 20 * third_second + 16 * axis


def _mixed_fifth(problem: Problem, x: Tensor, axis: Tensor) -> tuple[Tensor, Tensor]:
    """sum_j d_i^3 d_j^2 f and sum_j d_i d_j^4 f, both (d,), from derivatives along c e_i ± e_j (O(d^2) of them)."""
    eye = torch.eye(problem.dim, dtype=torch.float64)
    derivative = demand(problem, "derivative", "the bias of order epsilon^4 under Rademacher()")

    def even_part(c: float) -> Tensor:  # c^5 d_i^5 + 10 c^3 d_i^3 d_j^2 + 5 c d_i d_j^4
        plus, minus = (derivative(x, c * eye[:, None] + sign * eye[None, :], 5) for sign in (1.0, -1.0))
        mixed: Tensor = (plus + minus) / 2 - c**5 * axis[:, None]
        return mixed

    one, two = even_part(1.0), even_part(2.0)
    third_second, first_fourth = (two - 2 * one) / 60, (8 * one - two) / 30
    return third_second.sum(1), first_fourth.sum(1)


def _axis_derivatives(law: Law, problem: Problem, x: Tensor, j: int) -> Tensor:
    derivative = demand(problem, "derivative", f"the prediction of order {j} under {law!r}")
    along_axes: Tensor = derivative(x, torch.eye(problem.dim, dtype=torch.float64), j)
    return along_axes


def _radial(dim: int, degree: int) -> float:
    """E[P(u)] on the sphere of radius sqrt(d) over that for N(0, I), P homogeneous of even degree: d^k / (d (d+2) ...
    (d+2k-2)).
    """
    return math.prod(dim / (dim + 2 * i) for i in range(degree // 2))


@singledispatch
def weighted_product(law: Law, problem: Problem, x: Tensor, a: int, b: int) -> float:
    """Return E[D_a D_b |u|^2]; for a = 1 on the laws with |u|^2 = d it is d grad f . E[D_b u]."""
    return problem.dim * float(problem.gradient(x).double() @ odd_mean(law, problem, x, b))


@weighted_product.register
def _(law: Gaussian, problem: Problem, x: Tensor, a: int, b: int) -> float:
    if a == 1:
        return (problem.dim + 1 + b) * float(problem.gradient(x).double() @ odd_mean(law, problem, x, b))
    return (problem.dim + a + b) * float(demand(problem, "line_product", "the variance")(x, a, b))


@weighted_product.register
def _(law: Sphere, problem: Problem, x: Tensor, a: int, b: int) -> float:
    if a == 1:
        return problem.dim * float(problem.gradient(x).double() @ odd_mean(law, problem, x, b))
    return problem.dim * _radial(problem.dim, a + b) * float(demand(problem, "line_product", "the variance")(x, a, b))


@weighted_product.register
def _(law: Coordinate, problem: Problem, x: Tensor, a: int, b: int) -> float:
    left, right = (_axis_derivatives(law, problem, x, order) for order in (a, b))
    return float(problem.dim ** ((a + b) / 2)) * float(left @ right)
