"""The proof: theory equals the mean over every outcome, computed by plain code without the library's estimators."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from enumeration import CASES, Case, enumerate_estimates, enumerated, gauss_hermite, outcomes, setting, signed_axes
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from synthetic import problems
from zobench import (
    CentralStencil,
    Coordinate,
    ForwardStencil,
    Gaussian,
    KernelStencil,
    LineEstimator,
    Rademacher,
    RichardsonStencil,
    Sphere,
    methods,
    theory,
)
from zobench.kernels import kerzoo5_as_printed, legendre
from zobench.problem import MissingDerivativeError, Ridges
from zobench.theory import laws

pytestmark = pytest.mark.usefixtures("one_thread")

PROVEN = 1e-10
MISSED = 1e-6

STENCILS = {
    "forward": ForwardStencil(),
    "central": CentralStencil(),
    "richardson": RichardsonStencil(),
    "kernel1": KernelStencil(legendre(1)),
    "kernel3": KernelStencil(legendre(3)),
    "kernel5": KernelStencil(legendre(5)),
    "printed": KernelStencil(kerzoo5_as_printed()),
}


def miss(case: Case, f, x, stencil: str, epsilon: float, law=None, **planted: float) -> float:
    """Largest entry of: enumerated mean - (grad f + theory.bias)."""
    predicted = f.gradient(x) + theory.bias(LineEstimator(law or case.law, STENCILS[stencil], epsilon), f, x)
    return float((enumerated(case, f, x, epsilon, stencil, **planted).mean - predicted).abs().max())


@pytest.mark.parametrize("case", CASES)
def test_the_directions_enumerated_here_have_identity_covariance(case):
    u, p = CASES[case].directions
    assert float(p.sum()) == pytest.approx(1.0, abs=1e-13)
    assert torch.allclose(u.T @ (p[:, None] * u), torch.eye(u.shape[-1], dtype=torch.float64), atol=1e-12)
    fourth = u.T @ ((p * u.square().sum(-1))[:, None] * u)
    wanted = CASES[case].law.fourth_moment(u.shape[-1]) * torch.eye(u.shape[-1], dtype=torch.float64)
    assert torch.allclose(fourth, wanted, atol=1e-11)


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("problem", ["quadratic", "cubic", "quartic", "sextic"])
@pytest.mark.parametrize("case", CASES)
def test_bias_is_proven(case, problem, stencil):
    for epsilon in (0.05, 0.7):
        assert miss(*setting(case, problem), stencil, epsilon) < PROVEN


@given(epsilon=st.floats(1e-2, 1.0), seed=st.integers(0, 10**6), stencil=st.sampled_from(list(STENCILS)))
@pytest.mark.parametrize("case", ["rademacher-8", "coordinate-3", "gaussian-2", "sphere-3"])
def test_bias_is_proven_for_any_epsilon_and_problem(case, epsilon, seed, stencil):
    setup = setting(case, "sextic", seed)
    assert miss(*setup, stencil, epsilon) < PROVEN * max(1.0, float(setup[1].gradient(setup[2]).abs().max()))


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("case", CASES)
def test_covariance_trace_is_proven(case, stencil):
    case, f, x = setting(case, "sextic")
    for epsilon in (0.05, 0.7):
        estimator = LineEstimator(case.law, STENCILS[stencil], epsilon)
        truth = enumerated(case, f, x, epsilon, stencil)
        assert theory.covariance_trace(estimator, f, x) == pytest.approx(truth.covariance_trace, rel=PROVEN)
        second = truth.covariance_trace + float(truth.mean @ truth.mean)
        assert theory.second_moment(estimator, f, x) == pytest.approx(second, rel=PROVEN)
        error = truth.covariance_trace + float((truth.mean - f.gradient(x)).square().sum())
        assert theory.mse(estimator, f, x) == pytest.approx(error, rel=PROVEN)
        assert theory.coverage(estimator, f) == "exact, all orders"


@pytest.mark.parametrize("stencil", ["forward", "central", "richardson", "kernel3"])
@pytest.mark.parametrize("case", CASES)
def test_the_variance_of_noise_is_proven(case, stencil):
    """The noise is ±s here, every combination of signs over the nodes: only its variance enters."""
    case, f, x = setting(case, "quartic")
    truth = enumerated(case, f, x, 0.3, stencil, noise=0.5)
    estimator = LineEstimator(case.law, STENCILS[stencil], 0.3)
    assert theory.covariance_trace(estimator, f, x, noise=0.5) == pytest.approx(truth.covariance_trace, rel=PROVEN)
    wrong = theory.covariance_trace(estimator, f, x, noise=0.5 * 1.01)
    assert abs(wrong / truth.covariance_trace - 1) > MISSED  # planted: the noise 1 % off


class WithoutRidges:
    """A problem that declares what the issue of a smooth function would: no ridges."""

    def __init__(self, f) -> None:
        self.dim, self.degree, self.gradient, self.derivative = f.dim, f.degree, f.gradient, f.derivative
        self.grad_laplacian, self.f = f.grad_laplacian, f

    def with_hessian(self):
        self.hessian = self.f.hessian
        return self

    def __call__(self, x):
        return self.f(x)


@pytest.mark.parametrize(("stencil", "order"), [("forward", 2), ("central", 4), ("kernel1", 4), ("kernel3", 4)])
@pytest.mark.parametrize("case", ["rademacher-8", "gaussian-3"])
def test_what_is_left_out_without_ridges_is_of_the_declared_order(case, stencil, order):
    case, f, x = setting(case, "sextic")
    bare, errors = WithoutRidges(f), []
    for epsilon in (0.02, 0.01):
        truth = enumerated(case, f, x, epsilon, stencil).covariance_trace
        errors.append(truth - theory.covariance_trace(LineEstimator(case.law, STENCILS[stencil], epsilon), bare, x))
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.05)
    said = theory.coverage(LineEstimator(case.law, STENCILS[stencil], 1.0), bare)
    assert f"variance without O(epsilon^{order})" in said


@pytest.mark.parametrize("case", ["rademacher-8", "gaussian-3", "sphere-3"])
def test_a_hessian_gives_the_second_order_of_forward_differences(case):
    case, f, x = setting(case, "sextic")
    bare, errors = WithoutRidges(f).with_hessian(), []
    for epsilon in (0.02, 0.01):
        truth = enumerated(case, f, x, epsilon, "forward").covariance_trace
        errors.append(truth - theory.covariance_trace(LineEstimator(case.law, STENCILS["forward"], epsilon), bare, x))
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.05)
    said = theory.coverage(LineEstimator(case.law, STENCILS["forward"], 1.0), bare)
    assert "variance without O(epsilon^4)" in said


@pytest.mark.parametrize("stencil", ["forward", "central"])
@pytest.mark.parametrize("case", ["gaussian-3", "sphere-3"])
def test_what_descent_leaves_out_without_ridges_is_of_second_order(case, stencil):
    case, f, x = setting(case, "sextic")
    bare, errors = WithoutRidges(f).with_hessian(), []
    for epsilon in (0.02, 0.01):
        truth = enumerated(case, f, x, epsilon, stencil, weight=f.hessian(x)).curvature
        predicted = theory.DescentStep.of(LineEstimator(case.law, STENCILS[stencil], epsilon), bare, x)
        errors.append(truth - predicted.curvature)
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("stencil", ["central", "forward"])
def test_the_covariance_of_two_directions_is_half(stencil):
    """Every pair of directions, and every combination of noise, the base point of forward shared by both lines."""
    case, f, x = setting("coordinate-3", "sextic")
    u, epsilon, s = case.directions[0], 0.3, 0.4
    e = epsilon / math.sqrt(3)
    ends = (1, -1) if stencil == "central" else (1,)
    values = {r: f(x + e * r * u) for r in ends}
    estimates = []
    for i, j in itertools.product(range(len(u)), repeat=2):
        for noise in itertools.product((-s, s), repeat=2 * len(ends) + (stencil == "forward")):
            if stencil == "central":
                first = (values[1][i] + noise[0] - values[-1][i] - noise[1]) / (2 * e)
                second = (values[1][j] + noise[2] - values[-1][j] - noise[3]) / (2 * e)
            else:
                first = (values[1][i] + noise[0] - f(x) - noise[2]) / e
                second = (values[1][j] + noise[1] - f(x) - noise[2]) / e
            estimates.append((first * u[i] + second * u[j]) / 2)
    spread = torch.stack(estimates)
    estimator = LineEstimator(case.law, STENCILS[stencil], epsilon, n=2)
    assert torch.allclose(spread.mean(0), f.gradient(x) + theory.bias(estimator, f, x), atol=PROVEN)
    covariance = float(spread.var(0, unbiased=False).sum())
    assert theory.covariance_trace(estimator, f, x, noise=s) == pytest.approx(covariance, rel=PROVEN)
    assert theory.covariance_trace(replace(estimator, n=1), f, x, noise=s) == pytest.approx(2 * covariance, rel=PROVEN)


@pytest.mark.parametrize("stencil", ["central", "richardson", "kernel1", "kernel3", "kernel5"])
@pytest.mark.parametrize("case", CASES)
def test_a_quadratic_is_the_null_control(case, stencil):
    case, f, x = setting(case, "quadratic")
    for epsilon in (1e-2, 1.0):
        assert theory.bias(LineEstimator(case.law, STENCILS[stencil], epsilon), f, x).abs().max() < 1e-14
        assert (enumerated(case, f, x, epsilon, stencil).mean - f.gradient(x)).abs().max() < 1e-12
    assert miss(case, f, x, "printed", 0.3) < PROVEN
    printed = theory.bias(LineEstimator(case.law, STENCILS["printed"], 0.3), f, x)
    assert torch.allclose(printed, 6 / 7 * f.gradient(x), atol=1e-12)  # the misprint is biased even here


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("case", CASES)
def test_planted_a_factor_two_percent_off_is_seen(case, stencil):
    setup = setting(case, "quartic")
    size = float(enumerated(*setup, 0.3, stencil).mean.abs().max())
    assert size > 1e-3  # and so a factor of 1e-5 is a hundred times PROVEN
    for off in (0.02, 1e-5):
        assert miss(*setup, stencil, 0.3, scale=1.0 + off) == pytest.approx(off * size, rel=1e-3)


class WithoutCorrection(Rademacher):
    """Rademacher signs with the theory of Gaussian directions: the -2 f_iii is dropped."""


@theory.odd_mean.register
def _(law: WithoutCorrection, problem, x: Tensor, j: int) -> Tensor:
    return theory.odd_mean(Gaussian(), problem, x, j)


class WithoutFifthOrder(Rademacher):
    """Right at order e^2, the Gaussian theory at order e^4."""


@theory.odd_mean.register
def _(law: WithoutFifthOrder, problem, x: Tensor, j: int) -> Tensor:
    return theory.odd_mean(Rademacher() if j == 3 else Gaussian(), problem, x, j)


@pytest.mark.parametrize("stencil", ["forward", "central", "kernel1"])
def test_planted_a_wrong_rademacher_correction_is_seen(stencil):
    setup = setting("rademacher-8", "quartic")
    assert miss(*setup, stencil, 0.1, law=WithoutCorrection()) > MISSED
    assert miss(*setting("rademacher-8", "sextic"), stencil, 0.3, law=WithoutFifthOrder()) > MISSED


@pytest.mark.parametrize("case", ["gaussian-3", "sphere-3", "coordinate-3"])
def test_planted_the_theory_of_another_law_is_seen(case):
    case, f, x = setting(case, "sextic")
    for law in (Gaussian(), Sphere(), Coordinate(), Rademacher()):
        if law != case.law:
            assert miss(case, f, x, "central", 0.3, law=law) > MISSED


@given(epsilon=st.floats(0.05, 1.0), seed=st.integers(0, 1000))
def test_forward_and_central_have_the_same_bias_and_not_the_same_variance(epsilon, seed):
    _, f, x = setting("gaussian-3", "sextic", seed)
    forward, central = (LineEstimator(Gaussian(), STENCILS[name], epsilon) for name in ("forward", "central"))
    assert torch.allclose(theory.bias(forward, f, x), theory.bias(central, f, x), atol=1e-13)
    assert theory.covariance_trace(forward, f, x) > theory.covariance_trace(central, f, x)


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
def test_the_closed_form_of_rademacher_on_a_product_of_exponentials(epsilon):
    """f = exp(a . x): E g_i = sinh(eps a_i)/eps prod_(j != i) cosh(eps a_j) f; the series leaves O(eps^6)."""
    a, x = torch.tensor([0.5, -0.3, 0.8], dtype=torch.float64), torch.zeros(3, dtype=torch.float64)

    class Exponential:
        dim, degree = 3, None

        def __call__(self, x):
            return (x @ a).exp()

        def gradient(self, x):
            return a * self(x)

        def derivative(self, x, u, order):
            return (u @ a) ** order * self(x)

        def grad_laplacian(self, x, order=1):
            return float(a @ a) ** order * a * self(x)

    cosh = (epsilon * a).cosh()
    exact = (epsilon * a).sinh() / epsilon * cosh.prod() / cosh
    error = a + theory.bias(LineEstimator(Rademacher(), CentralStencil(), epsilon), Exponential(), x) - exact
    assert float(error.abs().max()) < 0.01 * epsilon**6
    assert float((a - exact).abs().max()) > 0.01 * epsilon**2  # planted: no bias claimed


def test_theory_says_what_it_lacks():
    class Bare:
        dim, degree = 2, 4

        def __call__(self, x):
            return x.square().sum(-1)

        def gradient(self, x):
            return 2 * x

    x = torch.ones(2, dtype=torch.float64)
    with pytest.raises(MissingDerivativeError, match=r"\.grad_laplacian of Bare"):
        theory.bias(methods.make("mezo"), Bare(), x)
    with pytest.raises(MissingDerivativeError, match=r"\.derivative of Bare"):
        theory.bias(methods.make("coordinate"), Bare(), x)
    assert theory.bias(methods.make("kerzoo", order=5), Bare(), x).abs().max() < 1e-12  # m_3 = 0: nothing needed
    with pytest.raises(TypeError, match=r"covers the coefficients of LineEstimator.* str makes its own"):
        theory.bias("mezo", Bare(), x)


@pytest.mark.parametrize("method", ["mezo", "kerzoo", "forward", "richardson", "coordinate"])
@pytest.mark.parametrize("noise", [1e-4, 1e-2])
def test_the_best_epsilon_is_a_minimum(method, noise):
    f = problems.make("sextic", dim=4)
    x = problems.start(f)
    estimator = methods.make(method)
    best = theory.best_epsilon(estimator, f, x, noise)
    least = theory.mse(replace(estimator, epsilon=best), f, x, noise)
    for factor in (0.1, 0.5, 0.99, 1.01, 2.0, 10.0):
        assert theory.mse(replace(estimator, epsilon=factor * best), f, x, noise) >= least * (1 - 1e-9)
    with pytest.raises(ValueError, match="noise"):
        theory.best_epsilon(estimator, f, x, 0.0)


def test_the_best_epsilon_stays_within_its_bounds():
    f = problems.make("quadratic", dim=4)
    assert 1e-8 <= theory.best_epsilon(methods.make("mezo"), f, problems.start(f), 0.1) <= 1e2


@pytest.mark.parametrize("order", [0, 2, 4, 6])
def test_a_quadratic_form_and_ridges_of_any_length(order):
    """E[u^T W u sum_k c_k (w_k . u)^b] for normal u, against Gauss and Hermite's rule, which is exact here."""
    draws = torch.Generator().manual_seed(3)
    c, w, m = (torch.randn(*shape, generator=draws).double() for shape in ((2,), (2, 3), (3, 3)))
    u, p = gauss_hermite(3)
    weight = m + m.T
    wanted = float(p @ (((u @ weight) * u).sum(-1) * ((u @ w.T) ** order @ c)))
    assert laws._quadratic_and_powers(weight, Ridges(c, w), order) == pytest.approx(wanted, rel=1e-10)


class ValueGradientHessian:
    """sum_i (i + 1) (x_i^2 / 2 + x_i), which declares neither ridges nor derivatives along lines."""

    dim, degree = 3, 2
    scales = torch.tensor([1.0, 2.0, 3.0]).double()

    def __call__(self, x):
        return (x * x / 2 + x) @ self.scales

    def gradient(self, x):
        return self.scales * (x + 1)

    def hessian(self, x):
        return torch.diag(self.scales)


def test_a_hessian_is_enough_for_a_quadratic_under_axes():
    f, x = ValueGradientHessian(), torch.tensor([0.2, -0.4, 1.0]).double()
    truth = enumerate_estimates(f, x, 0.3 / math.sqrt(3), *signed_axes(3), outcomes("forward"))  # 0.3 along an axis
    found = theory.mse(LineEstimator(Coordinate(), ForwardStencil(), 0.3), f, x)
    wanted = truth.covariance_trace + float((truth.mean - f.gradient(x)).square().sum())
    assert found == pytest.approx(wanted, rel=PROVEN)
