"""The best epsilon: the least of several minima, series that end, and goals that no epsilon serves."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from zobench import methods, theory
from zobench.problem import MissingDerivativeError, Ridges

pytestmark = pytest.mark.usefixtures("one_thread")

NOISE = 1e-3


class OnALine:
    """A polynomial of one variable, sum_k c_k x^k, with all its derivatives."""

    dim, minimum = 1, None

    def __init__(self, *coefficients: float) -> None:
        self.polynomial, self.degree = np.polynomial.Polynomial(coefficients), len(coefficients) - 1

    def __call__(self, x):
        return torch.from_numpy(np.asarray(self.polynomial(x[..., 0].numpy())))

    def of_order(self, x, order: int) -> float:
        return float(self.polynomial.deriv(order)(float(x[0])))

    def gradient(self, x):
        return torch.tensor([self.of_order(x, 1)], dtype=torch.float64)

    def derivative(self, x, u, order):
        return u[..., 0] ** order * self.of_order(x, order)

    def hessian(self, x):
        return torch.tensor([[self.of_order(x, 2)]], dtype=torch.float64)

    def ridges(self, x, order):
        ones = torch.ones(1, 1, dtype=torch.float64)
        return Ridges(torch.tensor([self.of_order(x, order)], dtype=torch.float64), ones)


class Sine:
    """sin(x) without ridges: its series does not end."""

    dim, degree, minimum = 1, None, None

    def __call__(self, x):
        return x[..., 0].sin()

    def gradient(self, x):
        return x.cos()

    def hessian(self, x):
        return -x.sin()[:, None]

    def grad_laplacian(self, x, order=1):
        return (-1) ** order * x.cos()


class NoHessian(Sine):
    hessian = None


ORIGIN = torch.zeros(1, dtype=torch.float64)


@pytest.mark.parametrize("zero", [0.5, 2.0, 4.0])
def test_the_least_of_two_minima_is_found(zero):
    """Bias e^2 - e^4 / zero^2 and variance s^2 / (2 e^2): the bias is 0 again at `zero`, where less noise is left."""
    f = OnALine(0, 1, 0, 1, 0, -1 / zero**2)
    best = theory.best_epsilon(methods.make("coordinate"), f, ORIGIN, NOISE)
    assert best == pytest.approx(zero, rel=1e-3)
    assert theory.mse(methods.make("coordinate", epsilon=best), f, ORIGIN, NOISE) == pytest.approx(
        NOISE**2 / (2 * zero**2), rel=1e-3
    )
    alone = theory.best_epsilon(methods.make("coordinate"), OnALine(0, 1, 0, 1), ORIGIN, NOISE)
    assert alone == pytest.approx((NOISE**2 / 4) ** (1 / 6), rel=1e-6)  # the twin without the second zero


class OnARidge(OnALine):
    """The polynomial of v.x with |v| = 1 in three dimensions."""

    dim, v = 3, torch.tensor([2.0, -1.0, 2.0], dtype=torch.float64) / 3

    def __call__(self, x):
        return super().__call__((x @ self.v)[..., None])

    def of_order(self, x, order: int) -> float:
        return super().of_order((x @ self.v)[None], order)

    def gradient(self, x):
        return self.of_order(x, 1) * self.v

    def derivative(self, x, u, order):
        return (u @ self.v) ** order * self.of_order(x, order)

    def hessian(self, x):
        return self.of_order(x, 2) * torch.outer(self.v, self.v)

    def ridges(self, x, order):
        return Ridges(torch.tensor([self.of_order(x, order)], dtype=torch.float64), self.v[None])


@pytest.mark.parametrize("goal", ["mse", "descent"])
@pytest.mark.parametrize("method", ["mezo", "coordinate", "orthogonal", "forward", "one-point", "kerzoo"])
@pytest.mark.parametrize("problem", [OnALine, OnARidge])
def test_nothing_on_a_grid_is_better(problem, method, goal):
    for seed in range(6 // problem.dim):
        coefficients = np.random.default_rng(seed).normal(size=7) / [math.factorial(k) ** 0.5 for k in range(7)]
        f, estimator = problem(*coefficients), methods.make(method)
        lines = theory.Lines(f, torch.full((f.dim,), 0.3, dtype=torch.float64))
        one = theory.Series(estimator.law, estimator.stencil, lines)

        def value(epsilon, estimator=estimator, one=one, lines=lines):
            at = replace(estimator, epsilon=float(epsilon))
            if goal == "mse":
                return theory.mse(at, lines.problem, lines.x, NOISE)
            step = theory.DescentStep.along(one, at, NOISE)
            return -step.best_decrease if step.curvature > 0 else 0.0

        tried = [value(epsilon) for epsilon in np.geomspace(1e-4, 99, 150)]
        if min(tried) == 0:
            with pytest.raises(ValueError, match="no epsilon from 1e-08 to 100 gains"):
                theory.best_epsilon(estimator, f, lines.x, NOISE, goal)
            continue
        found = value(theory.best_epsilon(estimator, f, lines.x, NOISE, goal))
        assert found <= min(tried) + 1e-9 * abs(min(tried))


@pytest.mark.parametrize("coefficients", [(0, 1, 0), (0, 1, -1), (1, 0, 0)], ids=["linear", "concave", "flat"])
def test_where_no_epsilon_gains_is_told(coefficients):
    f, estimator = OnALine(*coefficients), methods.make("mezo", epsilon=0.25)
    with pytest.raises(ValueError, match=r"no epsilon from 1e-08 to 100 gains.*give another x, or goal=\"mse\""):
        theory.best_epsilon(estimator, f, ORIGIN, NOISE, goal="descent")
    kept = theory.equal_budget([estimator], f, ORIGIN, 4, NOISE, best="descent")
    assert kept[0].estimator.epsilon == 0.25 and math.isnan(kept[0].best_lr) and math.isnan(kept[0].decrease)
    served = theory.equal_budget([estimator], OnALine(0, 1, 1), ORIGIN, 4, NOISE, best="descent")
    assert served[0].estimator.epsilon != 0.25 and served[0].decrease > 0


def exact_error(x: float, epsilon: float) -> float:
    """E|g - grad f|^2 of the forward difference on a sine, normal u, by quadrature."""
    u, p = np.polynomial.hermite_e.hermegauss(80)
    estimates = (np.sin(x + epsilon * u) - np.sin(x)) / epsilon * u
    return float(p @ (estimates - math.cos(x)) ** 2 / p.sum()) + 2 * NOISE**2 / epsilon**2


def test_a_truncated_series_gives_its_minimum_and_not_its_zero():
    x, forward = torch.full((1,), 1.2, dtype=torch.float64), methods.make("forward")
    found = theory.best_epsilon(forward, Sine(), x, NOISE)
    least = min(exact_error(1.2, epsilon) for epsilon in np.geomspace(1e-3, 0.3, 400))
    assert exact_error(1.2, found) < 1.01 * least
    assert theory.mse(replace(forward, epsilon=found), Sine(), x, NOISE) == pytest.approx(
        exact_error(1.2, found), rel=0.02
    )


def test_a_truncated_series_whose_error_only_falls_is_told():
    x, forward = torch.full((1,), 0.3, dtype=torch.float64), methods.make("forward")
    with pytest.warns(RuntimeWarning, match=r"the series of Sine is truncated.* the best epsilon is larger"):
        found = theory.best_epsilon(forward, Sine(), x, NOISE)
    predicted = theory.mse(replace(forward, epsilon=found), Sine(), x, NOISE)
    assert predicted == pytest.approx(exact_error(0.3, found), rel=0.15)
    assert (
        abs(theory.mse(replace(forward, epsilon=3 * found), Sine(), x, NOISE) / exact_error(0.3, 3 * found) - 1) > 0.5
    )


def test_what_a_choice_needs_is_told():
    x = torch.full((1,), 1.2, dtype=torch.float64)
    with pytest.raises(MissingDerivativeError, match=r"descent.* needs .*\.ridges of Sine"):
        theory.best_epsilon(methods.make("mezo"), Sine(), x, NOISE, goal="descent")
    with pytest.raises(MissingDerivativeError, match=r"ForwardStencil.* needs E\[D_2\^2\].*of NoHessian"):
        theory.best_epsilon(methods.make("forward"), NoHessian(), x, NOISE)
    assert theory.coverage(methods.make("forward"), Sine()).endswith("O(epsilon^4)")
    assert theory.coverage(methods.make("forward"), NoHessian()).endswith("O(epsilon^2)")
