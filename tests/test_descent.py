"""Expected descent: E[g^T H g] by enumeration, noise, several directions, and steps that are really taken."""

import itertools
import math
from dataclasses import replace
from math import comb

import numpy as np
import pytest
import torch
from enumeration import CASES, enumerated, masked_entry, normal_entry, setting, uniform_entry
from hypothesis import given
from hypothesis import strategies as st

import zobench
from synthetic import problems
from synthetic.problems import RidgePolynomial
from zobench import (
    CentralStencil,
    Coordinate,
    ForwardStencil,
    Gaussian,
    KernelStencil,
    LineEstimator,
    OnePointStencil,
    Orthogonal,
    Rademacher,
    RandomMask,
    RichardsonStencil,
    Sphere,
    Uniform,
    methods,
    theory,
)
from zobench.kernels import legendre, shrunk
from zobench.law import LAWS
from zobench.problem import Ridges
from zobench.theory import DescentStep, Noise, independent, laws, ridge_moments
from zobench.theory.lines import Lines

pytestmark = pytest.mark.usefixtures("one_thread")

PROVEN, MISSED = 1e-10, 1e-6
STENCILS = {
    "forward": ForwardStencil(),
    "central": CentralStencil(),
    "richardson": RichardsonStencil(),
    "kernel3": KernelStencil(legendre(3)),
}
WITH_VALUES = STENCILS | {"one-point": OnePointStencil()}


def axes_only(dim: int) -> RidgePolynomial:
    """A sextic whose Hessian is diagonal everywhere."""
    base = problems.make("sextic", dim=dim, rotated=False)
    eye = torch.eye(dim, dtype=torch.float64)
    return RidgePolynomial("separable", base.curvature, eye, base.centre, base.powers)


@pytest.mark.parametrize("stencil", STENCILS)
@pytest.mark.parametrize("case", [name for name in CASES if not name.startswith("rademacher-8")])
def test_curvature_is_proven(case, stencil):
    case, f, x = setting(case, "sextic")
    hessian = f.hessian(x)
    for epsilon in (0.05, 0.7):
        estimator = LineEstimator(case.law, STENCILS[stencil], epsilon)
        truth = enumerated(case, f, x, epsilon, stencil, noise=0.3, weight=hessian)
        step = DescentStep.of(estimator, f, x, noise=0.3)
        assert step.curvature == pytest.approx(truth.curvature, rel=PROVEN)
        assert step.slope == pytest.approx(float(f.gradient(x) @ truth.mean), rel=PROVEN)
        assert abs(DescentStep.of(estimator, f, x, noise=0.303).curvature / truth.curvature - 1) > MISSED  # planted


@pytest.mark.parametrize("stencil", STENCILS)
def test_curvature_under_signs_is_proven_for_a_diagonal_hessian(stencil):
    case, f = CASES["rademacher-8"], axes_only(8)
    x = problems.start(f)
    truth = enumerated(case, f, x, 0.3, stencil, weight=f.hessian(x)).curvature
    assert DescentStep.of(LineEstimator(Rademacher(), STENCILS[stencil], 0.3), f, x).curvature == pytest.approx(
        truth, rel=PROVEN
    )


@pytest.mark.parametrize("stencil", STENCILS)
def test_what_curvature_under_signs_leaves_out_is_of_fourth_order(stencil):
    case, f, x = setting("rademacher-8", "sextic")
    errors = []
    for epsilon in (0.02, 0.01):
        truth = enumerated(case, f, x, epsilon, stencil, weight=f.hessian(x)).curvature
        errors.append(DescentStep.of(LineEstimator(Rademacher(), STENCILS[stencil], epsilon), f, x).curvature - truth)
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.05)


class Waves:
    """sum_j c_j sin(v_j.x + b_j), whose series does not end, with ridges or without."""

    degree, minimum = None, None

    def __init__(self, dim: int, ridges: bool) -> None:
        draws = torch.Generator().manual_seed(dim)
        self.dim = dim
        self.c, self.b = torch.randn(2, dim, generator=draws, dtype=torch.float64)
        self.v = 0.7 * torch.randn(dim, dim, generator=draws, dtype=torch.float64)
        self.ridges = self._ridges if ridges else None

    def __call__(self, x):
        return torch.sin(x @ self.v.T + self.b) @ self.c

    def of_order(self, x, order: int):
        return self.c * torch.sin(self.v @ x + self.b + order * math.pi / 2)

    def gradient(self, x):
        return self.of_order(x, 1) @ self.v

    def hessian(self, x):
        return (self.v.T * self.of_order(x, 2)) @ self.v

    def grad_laplacian(self, x, order=1):
        return (self.of_order(x, 2 * order + 1) * self.v.square().sum(1) ** order) @ self.v

    def _ridges(self, x, order):
        return Ridges(self.of_order(x, order), self.v)


@pytest.mark.parametrize("dim", [2, 3])
@pytest.mark.parametrize(("ridges", "curvature", "second_moment"), [(False, 2, 4), (True, 6, 6)])
def test_what_is_left_out_of_a_series_that_does_not_end(ridges, curvature, second_moment, dim):
    """Orders in epsilon of the errors of E[g^T H g] and E|g|^2, normal u by quadrature, as their docstrings say."""
    f, x = Waves(dim, ridges), torch.full((dim,), 0.4, dtype=torch.float64)
    nodes, p = map(torch.from_numpy, np.polynomial.hermite_e.hermegauss(32))
    u = torch.cartesian_prod(*[nodes] * dim)
    p = torch.cartesian_prod(*[p / p.sum()] * dim).prod(1)
    errors = []
    for epsilon in (0.2, 0.1):
        estimates = ((f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon))[:, None] * u
        truth = float(p @ ((estimates @ f.hessian(x)) * estimates).sum(1)), float(p @ estimates.square().sum(1))
        estimator = methods.make("mezo", epsilon=epsilon)
        found = DescentStep.of(estimator, f, x).curvature, theory.second_moment(estimator, f, x)
        errors.append([one - other for one, other in zip(found, truth, strict=True)])
    orders = [math.log2(wide / narrow) for wide, narrow in zip(*errors, strict=True)]
    assert orders == pytest.approx([curvature, second_moment], abs=0.3)


def test_quartic_forms_are_proven():
    generator = torch.Generator().manual_seed(3)
    for case in CASES.values():
        u, p = case.directions
        left, right = (m + m.T for m in torch.randn(2, case.dim, case.dim, generator=generator, dtype=torch.float64))
        truth = float(p @ (((u @ left) * u).sum(-1) * ((u @ right) * u).sum(-1)))
        assert laws.quartic(case.law, left, right) == pytest.approx(truth, rel=PROVEN, abs=1e-12)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("stencil", ["central", "forward", "richardson", "one-point"])
def test_minibatch_noise_is_proven(stencil, n, shared):
    """f + xi . x with xi = ± one of d vectors: every minibatch, every pair of directions."""
    case, f, x = setting("coordinate-3", "quartic")
    rows = 0.4 * torch.randn(3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    xis = torch.cat((rows, -rows))
    covariance = xis.T @ xis / len(xis)
    u, nodes, weights = case.directions[0], *(v[0] for v in WITH_VALUES[stencil].draw(0, (1,)))
    e = 0.5 / math.sqrt(3)

    def slope(i: int, xi) -> float:
        ends = [x + e * r * u[i] for r in nodes]
        return float(weights @ torch.stack([f(end) + xi @ end for end in ends])) / e

    single = [[slope(i, xi) * u[i] for i in range(len(u))] for xi in xis]
    estimates = []
    for first in range(len(xis)):
        for second in [first] if shared or n == 1 else range(len(xis)):
            for i, j in itertools.product(range(len(u)), repeat=2):
                estimates.append((single[first][i] + single[second][j]) / 2 if n == 2 else single[first][i])
    all_estimates, hessian = torch.stack(estimates), f.hessian(x)
    noise = Noise(minibatch=covariance, shared=shared)
    estimator = LineEstimator(Coordinate(), WITH_VALUES[stencil], 0.5, n)
    spread = float(all_estimates.var(0, unbiased=False).sum())
    curvature = float(((all_estimates @ hessian) * all_estimates).sum(-1).mean())
    assert theory.covariance_trace(estimator, f, x, noise) == pytest.approx(spread, rel=1e-9)
    assert DescentStep.of(estimator, f, x, noise).curvature == pytest.approx(curvature, rel=1e-9)
    if n == 2:
        other = theory.covariance_trace(estimator, f, x, replace(noise, shared=not shared))
        assert abs(other / spread - 1) > 1e-3  # planted: the other kind of noise


def test_quadratics_lose_what_is_predicted():
    """One SGD step from 200,000 keys; the expected decrease is exact on a quadratic, z < 5; twin: the rate 5 % off."""
    f = problems.make("quadratic", dim=8)
    x = problems.start(f)
    for name in ("mezo", "kerzoo", "forward"):
        estimator = methods.make(name, epsilon=0.1, n=2)
        lr = theory.best_lr(estimator, f, x, noise=0.01)
        steps = zobench.estimate(estimator, f, x, key=11, samples=200_000, noise=0.01)
        gains = f(x) - f(x - lr * steps)
        error = float(gains.std()) / math.sqrt(len(gains))
        assert abs(float(gains.mean()) - theory.descent(estimator, f, x, lr, noise=0.01)) < 5 * error
        far = f(x) - f(x - 3 * lr * steps)
        wrong = theory.descent(estimator, f, x, 3.15 * lr, noise=0.01)
        assert abs(float(far.mean()) - wrong) > 5 * float(far.std()) / math.sqrt(len(far))


def test_what_descent_leaves_out_on_a_quartic_is_of_third_order_in_the_rate():
    case, f, x = setting("gaussian-3", "quartic")
    estimator = LineEstimator(Gaussian(), CentralStencil(), 0.1)
    u, p = case.directions
    slopes = (f(x + 0.1 * u) - f(x - 0.1 * u)) / 0.2
    errors = []
    for lr in (2e-3, 1e-3):
        truth = float(p @ (f(x) - f(x - lr * slopes[:, None] * u)))
        errors.append(theory.descent(estimator, f, x, lr) - truth)
    assert errors[0] / errors[1] == pytest.approx(8, rel=0.1)


@given(name=st.sampled_from(["mezo", "kerzoo", "forward", "richardson", "coordinate"]), seed=st.integers(0, 1000))
def test_the_best_rate_gains_most(name, seed):
    f = problems.make("quartic", dim=5, seed=seed)
    x, estimator = problems.start(f, seed), methods.make(name, epsilon=0.05)
    lr = theory.best_lr(estimator, f, x)
    best = theory.descent(estimator, f, x, lr)
    assert best == pytest.approx(DescentStep.of(estimator, f, x).best_decrease)
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert theory.descent(estimator, f, x, factor * lr) < best


def test_the_kernel_is_slower_by_its_second_moment_and_equal_far_below_the_best_rate():
    f = problems.make("quadratic", dim=100, condition=1.0)
    x = problems.start(f)
    mezo, kerzoo = (methods.make(name) for name in ("mezo", "kerzoo"))
    ratio = DescentStep.of(mezo, f, x).best_decrease / DescentStep.of(kerzoo, f, x).best_decrease
    assert ratio == pytest.approx(6.25, rel=1e-9)
    small = 1e-4 * theory.best_lr(kerzoo, f, x)
    assert theory.descent(kerzoo, f, x, small) == pytest.approx(theory.descent(mezo, f, x, small), rel=1e-3)


def test_there_is_no_best_rate_where_longer_is_better():
    f = problems.make("quadratic", dim=3)
    hill = RidgePolynomial("hill", -f.curvature, f.ridge_directions, f.centre, {})
    with pytest.raises(ValueError, match="no best learning rate"):
        theory.best_lr(methods.make("mezo"), hill, problems.start(hill))
    with pytest.raises(ValueError, match="no best learning rate"):
        theory.best_lr(methods.make("mezo"), f, f.centre)


def test_equal_budget_spends_the_same_on_each():
    f = problems.make("sextic", dim=8)
    x = problems.start(f)
    estimators = [methods.make(name, epsilon=0.1) for name in ("forward", "mezo", "richardson", "kerzoo")]
    forecasts = theory.equal_budget(estimators, f, x, 12, noise=1e-3)
    assert [forecast.estimator.n for forecast in forecasts] == [11, 6, 3, 6]
    assert all(forecast.evaluations == 12 for forecast in forecasts)
    for forecast in forecasts:
        assert forecast.mse == pytest.approx(theory.mse(forecast.estimator, f, x, 1e-3))
        assert forecast.bias == pytest.approx(float(theory.bias(forecast.estimator, f, x).norm()))
        assert forecast.best_lr == pytest.approx(theory.best_lr(forecast.estimator, f, x, 1e-3))
    with pytest.raises(ValueError, match=r"evaluations is 3: one direction of .*Richardson.* costs 4"):
        theory.equal_budget(estimators, f, x, 3)


@pytest.mark.parametrize("goal", ["mse", "descent"])
def test_equal_budget_at_each_ones_best_epsilon(goal):
    f = problems.make("sextic", dim=8)
    x = problems.start(f)
    estimators = [methods.make(name) for name in ("mezo", "kerzoo")]
    for forecast in theory.equal_budget(estimators, f, x, 8, 1e-2, best=goal):
        value = forecast.mse if goal == "mse" else -forecast.decrease
        for factor in (0.8, 1.25):
            moved = replace(forecast.estimator, epsilon=factor * forecast.estimator.epsilon)
            step = DescentStep.of(moved, f, x, 1e-2)
            assert (theory.mse(moved, f, x, 1e-2) if goal == "mse" else -step.best_decrease) > value
    with pytest.raises(ValueError, match="goal is 'speed'"):
        theory.best_epsilon(estimators[0], f, x, 1e-2, goal="speed")


def test_noise_is_checked():
    with pytest.raises(ValueError, match="noise is -1"):
        Noise(-1.0)
    f = problems.make("quadratic", dim=2)
    with pytest.raises(ValueError, match="noise is nan"):
        theory.mse(methods.make("mezo"), f, problems.start(f), noise=math.nan)


WEAK = KernelStencil(shrunk(legendre(3), 0.5))  # m_1 is not 1


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("law", ["gaussian", "sphere", "rademacher", "coordinate"])
def test_minibatch_noise_in_closed_form(law, shared):
    """On a linear function E|g|^2 = q c_d G / n + (1 - 1/n) m_1^2 G', G = |g|^2 + tr S, G' = G if shared, c_d = d + 2
    for Gaussian directions and d for those of fixed length; on a quadratic, Gaussian directions and S = a a^T add
    q (a.a tr H + 2 a.H a) / n + [shared] (1 - 1/n) m_1^2 a.H a to E[g^T H g].
    """
    dim, n, a = 4, 3, torch.tensor([0.3, -0.5, 0.2, 0.7], dtype=torch.float64)
    q, m, square = WEAK.slope_second_moment(), WEAK.moment(1), float(a @ a)
    assert abs(m - 1) > 0.1
    f = problems.make("quadratic", dim=dim)
    estimator, x = LineEstimator(LAWS[law], WEAK, 0.1, n), problems.start(f)
    noise, gradient = Noise(minibatch=torch.outer(a, a), shared=shared), f.gradient(x)
    c = dim + 2 if law == "gaussian" else dim
    trace = theory.covariance_trace(estimator, f, x, noise) - theory.covariance_trace(estimator, f, x)
    assert trace == pytest.approx((q * c / n + shared * (1 - 1 / n) * m**2) * square, rel=1e-9)
    if law == "gaussian":
        flat = RidgePolynomial("flat", 0 * f.curvature, f.ridge_directions, f.centre, {})
        assert theory.mse(estimator, flat, x, noise) == pytest.approx(trace, rel=1e-9)
        along = float(a @ f.hessian(x) @ a)
        wanted = q * (square * float(f.hessian(x).trace()) + 2 * along) / n + shared * (1 - 1 / n) * m**2 * along
        found = DescentStep.of(estimator, f, x, noise).curvature - DescentStep.of(estimator, f, x).curvature
        assert found == pytest.approx(wanted, rel=1e-9)
    assert float(gradient.norm()) > 0.1


def frames(dim: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs of orthogonal directions of length sqrt(d) in d = 2 or 3, by quadrature: (N, d), (N, d), probabilities."""
    u, p = CASES[f"sphere-{dim}"].directions
    if dim == 2:
        return u, torch.stack((-u[:, 1], u[:, 0]), -1), p
    one = torch.linalg.cross(u, torch.tensor([0.6, -0.4, 0.9], dtype=torch.float64).expand_as(u))
    one = one * math.sqrt(dim) / one.norm(dim=-1, keepdim=True)
    other = torch.linalg.cross(u, one) / math.sqrt(dim)
    around = [one * math.cos(k * math.pi / 4) + other * math.sin(k * math.pi / 4) for k in range(8)]
    return u.repeat(8, 1), torch.cat(around), p.repeat(8) / 8


@pytest.mark.parametrize("dim", [2, 3])
def test_the_curvature_between_orthogonal_directions_is_proven(dim):
    f = problems.make("quadratic", dim=dim, seed=2)
    x = problems.start(f)
    u, v, p = frames(dim)
    assert float((u * v).sum(-1).abs().max()) < 1e-12
    estimator = LineEstimator(Orthogonal(), CentralStencil(), 0.1, 2)
    gradient, hessian = f.gradient(x), f.hessian(x)
    g = ((u @ gradient)[:, None] * u + (v @ gradient)[:, None] * v) / 2
    truth = float(p @ ((g @ hessian) * g).sum(-1))
    assert DescentStep.of(estimator, f, x).curvature == pytest.approx(truth, rel=PROVEN)
    independent = LineEstimator(Sphere(), CentralStencil(), 0.1, 2)
    assert abs(DescentStep.of(independent, f, x).curvature / truth - 1) > 1e-3  # planted


def test_the_curvature_between_distinct_coordinates_is_proven():
    f = problems.make("quadratic", dim=3, seed=2)
    x = problems.start(f)
    axes = torch.eye(3, dtype=torch.float64)
    parts = [3 * float(f.gradient(x)[i]) * axes[i] for i in range(3)]
    steps = [(parts[i] + parts[j]) / 2 for i in range(3) for j in range(3) if i != j]
    truth = sum(float(g @ f.hessian(x) @ g) for g in steps) / len(steps)
    estimator = LineEstimator(Coordinate(replace=False), CentralStencil(), 0.1, 2)
    assert DescentStep.of(estimator, f, x).curvature == pytest.approx(truth, rel=1e-9)


@pytest.mark.parametrize("a", [2, 4, 6])
def test_moments_of_signs_are_proven(a):
    """Sums over ridges of even and odd powers, and with a quadratic form, over all 32 signs."""
    draws = torch.Generator().manual_seed(4)
    v, c = torch.randn(3, 5, generator=draws).double(), torch.randn(3, generator=draws).double()
    w = torch.randn(5, 5, generator=draws).double()
    weight = w + w.T - 2 * torch.diag(w.diagonal())
    u = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=5)), dtype=torch.float64)
    along = (u @ v.T) ** a @ c
    assert ridge_moments.sign_mean((c, v), a) == pytest.approx(float(along.mean()), rel=1e-9)
    forms = ((u @ weight) * u).sum(-1) * along
    assert ridge_moments.sign_quadratic_mean(weight, (c, v), a) == pytest.approx(float(forms.mean()), rel=1e-9)
    odd = ((u @ v.T) ** (a + 1) @ c)[:, None] * u
    assert torch.allclose(ridge_moments.sign_odd_mean((c, v), a + 1), odd.mean(0), rtol=1e-9)


@pytest.mark.parametrize(("a", "b"), [(0, 2), (1, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize("case", CASES)
def test_derivatives_times_a_quadratic_form_are_proven(case, a, b):
    """E[D_a D_b u^T W u] of any symmetric W."""
    case, f, x = setting(case, "sextic")
    u, p = case.directions
    w = torch.randn(case.dim, case.dim, generator=torch.Generator().manual_seed(6)).double()
    lines = Lines(f, x)
    product = torch.ones_like(p)
    for order in (a, b):
        coefficients, directions = lines.ridges(order, "")
        product = product * ((u @ directions.T) ** order @ coefficients)
    truth = float(p @ (product * ((u @ (w + w.T)) * u).sum(-1)))
    assert laws.curved(case.law, lines, w + w.T, a, b) == pytest.approx(truth, rel=1e-9)


def test_the_best_gain_is_that_of_the_parabola():
    """max over lr >= 0 of lr slope - lr^2 curvature / 2: no gain uphill, no bound where the parabola opens upwards."""
    gains = {(2.0, 4.0): 0.5, (-2.0, 4.0): 0.0, (2.0, 0.0): math.inf, (2.0, -4.0): math.inf}
    for step, wanted in gains.items():
        assert DescentStep(*step).best_decrease == wanted


class Doubled(Gaussian):
    """A law that theory takes to have E[credit u^T] = 2 I."""

    second_moment = 2.0


def test_the_bias_of_a_law_counts_its_second_moment():
    """E g = m_1 times the second moment times the gradient, here 2 m_1."""
    f = problems.make("quadratic", dim=3)
    x = problems.start(f)
    for stencil in (CentralStencil(), WEAK):
        found = theory.bias(LineEstimator(Doubled(), stencil, 0.1), f, x)
        assert torch.allclose(found, (2 * stencil.moment(1) - 1) * f.gradient(x), rtol=1e-12)


@pytest.mark.parametrize("law", [Uniform(), RandomMask(Rademacher(), 0.25), RandomMask(Gaussian(), 0.5)], ids=repr)
def test_cumulants_of_an_entry_are_those_of_its_moments(law):
    """E exp(s u) = exp(sum kappa_n s^n / n!), order by order, from moments by plain integration."""
    table = independent.entry_cumulants(law)
    nodes, weights = uniform_entry(12) if law == Uniform() else normal_entry(12)
    if law == RandomMask(Rademacher(), 0.25):
        nodes, weights = [-1.0, 1.0], [0.5, 0.5]
    if isinstance(law, RandomMask):
        nodes, weights = masked_entry(nodes, weights, law.density)
    u, p = torch.tensor(nodes, dtype=torch.float64), torch.tensor(weights, dtype=torch.float64)
    moments = {n: float(p @ u**n) for n in range(0, 15, 2)}
    for n in range(2, 15, 2):
        known = sum(comb(n - 1, k - 1) * table[k] * moments[n - k] for k in range(2, n + 1, 2))
        assert known == pytest.approx(moments[n], rel=1e-9)


def test_signs_are_the_law_of_cumulants_that_they_were():
    """A mask of density 1 over signs is a sign, whatever the formula."""
    case, f, x = setting("rademacher-8", "sextic")
    for name, stencil in STENCILS.items():
        one, other = (LineEstimator(law, stencil, 0.3) for law in (Rademacher(), RandomMask(Rademacher(), 1.0)))
        for predict in (theory.mse, theory.second_moment):
            assert predict(other, f, x) == pytest.approx(predict(one, f, x), rel=PROVEN)
        truth = enumerated(case, f, x, 0.3, name, weight=f.hessian(x))
        assert DescentStep.of(other, f, x).curvature == pytest.approx(truth.curvature, rel=PROVEN)
