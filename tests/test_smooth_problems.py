"""Problems beyond ridges: every derivative against autograd of the formula written out again here, and against a
formula with one mistake in it, which every check must notice.
"""

import importlib
import itertools
import math
import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, hessian

from synthetic.problems import (
    MLP,
    Ackley,
    Empirical,
    ExactProblem,
    LogisticRegression,
    PowerSeries,
    Separable,
    make,
    start,
)
from zobench.problem import MissingDerivativeError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),  # inside torch.func
]

SEEDS = st.integers(0, 10**6)
Point = Callable[[Tensor], Tensor]


def separable(f, x, last=720):
    y, c = x - f.centre, f.powers
    square = y * y
    psi = c[3] * square * y / 6 + square * square * (c[4] / 24 + c[6] * square / last)
    return (f.spectrum * square / 2 + psi).sum()


def styblinski_tang(f, x, linear=5.0):
    return 0.5 * (x**4 - 16 * x**2 + linear * x).sum()


def rastrigin(f, x, turns=2.0):
    return 10 * len(x) + (x**2 - 10 * torch.cos(turns * math.pi * x)).sum()


def levy(f, x, width=4.0):
    w = 1 + (x - 1) / width
    inner = ((w[:-1] - 1) ** 2 * (1 + 10 * torch.sin(math.pi * w[:-1] + 1) ** 2)).sum()
    return torch.sin(math.pi * w[0]) ** 2 + inner + (w[-1] - 1) ** 2 * (1 + torch.sin(2 * math.pi * w[-1]) ** 2)


def rosenbrock(f, x, steepness=100.0):
    pairs = [steepness * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2 for i in range(len(x) - 1)]
    return torch.stack(pairs).sum()


def ackley(f, x, turns=2.0):
    d = len(x)
    bowl = -20 * torch.exp(-0.2 * torch.sqrt((x**2).sum() / d))
    return bowl - torch.exp(torch.cos(turns * math.pi * x).sum() / d) + 20 + math.e


def logistic(f, x, penalty=0.5):
    losses = torch.log1p(torch.exp(-f.labels * (f.features * x).sum(1)))
    return losses.mean() + penalty * f.l2 * (x**2).sum()


def mlp(f, x, unit=1.0):
    p = f.features.shape[1]
    h = (len(x) - 1) // (p + 2)
    matrix, b, w, c = x[: h * p].reshape(h, p), x[h * p : h * p + h], x[h * p + h : -1], x[-1]
    z = torch.tanh(unit * (f.features @ matrix.T + b)) @ w + c
    if f.loss == "squared":
        return 0.5 * ((z - f.labels) ** 2).mean()
    return torch.log(1 + torch.exp(-f.labels * z)).mean()


class Family(NamedTuple):
    """How to make a problem of about `dim` variables, its formula, and the argument of the formula that is wrong."""

    make: Callable[[int, int], ExactProblem]
    formula: Callable[..., Tensor]
    mistake: dict[str, float]

    def plain(self, f: ExactProblem) -> Point:
        return lambda x: self.formula(f, x)

    def wrong(self, f: ExactProblem) -> Point:
        return lambda x: self.formula(f, x, **self.mistake)


def small_mlp(loss: str) -> Callable[[int, int], MLP]:
    return lambda dim, seed: make("mlp", inputs=1 + dim % 2, hidden=1 + dim // 3, examples=5, loss=loss, seed=seed)


def own_dim(name: str, least: int = 1) -> Callable[[int, int], ExactProblem]:
    return lambda dim, seed: make(name, max(dim, least))


FAMILIES = {
    "separable": Family(lambda dim, seed: make("separable", dim, seed=seed), separable, {"last": 700}),
    "styblinski-tang": Family(own_dim("styblinski-tang"), styblinski_tang, {"linear": 4.0}),
    "rastrigin": Family(own_dim("rastrigin"), rastrigin, {"turns": 1.0}),
    "levy": Family(own_dim("levy"), levy, {"width": 4.01}),
    "rosenbrock": Family(own_dim("rosenbrock", 2), rosenbrock, {"steepness": 99.0}),
    "ackley": Family(own_dim("ackley"), ackley, {"turns": 2.01}),
    "logistic": Family(lambda dim, seed: make("logistic", dim, examples=7, seed=seed), logistic, {"penalty": 1.0}),
    "mlp": Family(small_mlp("squared"), mlp, {"unit": 1.1}),
    "mlp-logistic": Family(small_mlp("logistic"), mlp, {"unit": 1.1}),
}
MISTAKE_SHOWS_UP_TO = {"styblinski-tang": 1, "logistic": 2}  # a linear term, a quadratic penalty
EACH = pytest.mark.parametrize("name", FAMILIES)


def near(name: str, dim: int, seed: int) -> tuple[ExactProblem, Tensor, Tensor]:
    """A problem, a point and a direction of about unit length."""
    f = FAMILIES[name].make(dim, seed)
    other = make("quadratic", f.dim)
    return f, start(f, seed), start(other, seed + 1) - other.centre


def along(plain: Point, x: Tensor, u: Tensor, order: int) -> Tensor:
    """D^order f(x)[u, ..., u] by differentiating t -> f(x + t u) again and again."""
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    value = plain(x + t * u)
    for _ in range(order):
        if not value.requires_grad:
            return torch.zeros_like(t).detach()
        (value,) = torch.autograd.grad(value, t, create_graph=True, materialize_grads=True)
    return value.detach()


def laplacian(f: Point, count: int) -> Point:
    for _ in range(count):

        def f(point: Tensor, inner=f) -> Tensor:
            return hessian(inner)(point).trace()

    return f


def close(ours: Tensor, theirs: Tensor, rtol: float = 1e-9) -> bool:
    """Whether they agree to a relative error of the largest entry."""
    assert ours.shape == theirs.shape and ours.dtype == torch.float64
    return float((ours - theirs).abs().max()) <= rtol * (1e-3 + float(theirs.abs().max()))


@EACH
@settings(max_examples=10)
@given(seed=SEEDS, dim=st.integers(1, 6))
def test_value_and_gradient(name, seed, dim):
    f, x, _ = near(name, dim, seed)
    plain, wrong = FAMILIES[name].plain(f), FAMILIES[name].wrong(f)
    assert close(1 + f(x), 1 + plain(x), 1e-12)  # near a minimum the plain sum cancels
    assert torch.equal(f(x), f.value(x))
    assert close(f.gradient(x), grad(plain)(x), 1e-11)
    assert not close(f(x), wrong(x), 1e-6)  # planted
    assert not close(f.gradient(x), grad(wrong)(x), 1e-6)  # planted


@EACH
def test_gradients_are_differences(name):
    f, x, _ = near(name, 5, 3)
    step = 1e-5 * torch.eye(f.dim, dtype=torch.float64)
    differences = (f(x + step) - f(x - step)) / 2e-5
    assert close(f.gradient(x), differences, 1e-6)
    assert not close(f.gradient(x), 1.001 * differences, 1e-6)  # planted
    rows = (f.gradient(x + step) - f.gradient(x - step)) / 2e-5
    assert close(f.hessian(x), rows, 1e-6)


@EACH
def test_hessian(name):
    f, x, _ = near(name, 4, 2)
    ours = f.hessian(x)
    assert close(ours, hessian(FAMILIES[name].plain(f))(x))
    assert torch.equal(ours, ours.T)
    if MISTAKE_SHOWS_UP_TO.get(name, 9) >= 2:
        assert not close(ours, hessian(FAMILIES[name].wrong(f))(x), 1e-6)  # planted


@EACH
@pytest.mark.parametrize("order", range(1, 7))
def test_directional_derivatives(name, order):
    f, x, u = near(name, 4, 5)
    ours = f.derivative(x, u, order)
    assert close(ours, along(FAMILIES[name].plain(f), x, u, order))
    assert close(f.derivative(x, 2 * u, order), 2.0**order * ours)
    if f.degree is not None and order > f.degree:
        assert float(ours) == 0.0
    elif MISTAKE_SHOWS_UP_TO.get(name, 9) >= order:
        assert not close(ours, along(FAMILIES[name].wrong(f), x, u, order), 1e-6)  # planted


@EACH
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_of_iterated_laplacians(name, order):
    f, x, _ = near(name, 3, 4)
    ours = f.grad_laplacian(x, order=order)
    assert close(ours, grad(laplacian(FAMILIES[name].plain(f), order))(x), 1e-8)
    if f.degree is None or 2 * order < f.degree:
        assert float(ours.norm()) > 1e-3
        wrong = grad(laplacian(FAMILIES[name].wrong(f), order))(x)
        assert MISTAKE_SHOWS_UP_TO.get(name) or not close(ours, wrong, 1e-6)  # planted


@EACH
@pytest.mark.parametrize("order", range(1, 7))
def test_ridges_are_the_directional_derivatives(name, order):
    f, x, u = near(name, 5, 6)
    if order > 2 and isinstance(f, Ackley | MLP):
        with pytest.raises(MissingDerivativeError, match=f"{f.name} has D.{order} f along lines"):
            f.ridges(x, order)
        return
    coefficients, directions = f.ridges(x, order)
    assert coefficients.shape == directions.shape[:1] and directions.shape[1] == f.dim
    lines = torch.stack([u, start(f, 1), start(f, 2)])
    wanted = f.derivative(x, lines, order)
    assert close((directions @ lines.T).T ** order @ coefficients, wanted)
    if f.degree is None or order <= f.degree:
        assert not close((directions @ lines.T).T ** order @ (1.0001 * coefficients), wanted, 1e-6)  # planted


def test_separable_ridges_share_their_directions():
    f = make("separable", 1000)
    found = [f.ridges(start(f), order) for order in range(2, 7)]
    assert all(ridges.directions is f.axes for ridges in found)


@EACH
@settings(max_examples=5)
@given(seed=SEEDS, dim=st.integers(1, 5))
def test_batches_are_loops(name, seed, dim):
    f = FAMILIES[name].make(dim, seed)
    x = torch.stack([start(f, seed + i) for i in range(6)]).reshape(2, 3, f.dim)
    u = x.flip(0)[:, :1]
    values, gradients, lines = f(x), f.gradient(x), f.derivative(x, u, 3)
    assert values.shape == lines.shape == (2, 3) and gradients.shape == (2, 3, f.dim)
    grown = f.grad_laplacian(x)
    for i, j in itertools.product(range(2), range(3)):
        assert close(values[i, j], f(x[i, j]), 1e-12)
        assert close(gradients[i, j], f.gradient(x[i, j]), 1e-12)
        assert close(lines[i, j], f.derivative(x[i, j], u[i, 0], 3), 1e-11)
        assert close(grown[i, j], f.grad_laplacian(x[i, j]), 1e-11)
    assert f.derivative(x[0, 0], torch.eye(f.dim, dtype=torch.float64), 2).shape == (f.dim,)


@EACH
@settings(max_examples=10)
@given(seed=SEEDS, dim=st.integers(1, 20), size=st.floats(1e-4, 10))
def test_a_declared_minimum_is_one(name, seed, dim, size):
    f = FAMILIES[name].make(dim, seed)
    if f.minimum is None:
        assert name == "mlp-logistic" and f.minimizer is None
        return
    scale = 1 + abs(f.minimum)
    assert abs(float(f(f.minimizer)) - f.minimum) <= 1e-14 * scale
    assert torch.equal(f.minimizer, f.centre)
    away = f.minimizer + size * torch.stack([start(f, seed + i) - f.centre for i in range(20)]) / f.radius
    assert float(f(away).min()) >= f.minimum - 1e-14 * scale
    if not isinstance(f, Ackley):
        assert float(f.gradient(f.minimizer).norm()) < 1e-11
        assert float(torch.linalg.eigvalsh(f.hessian(f.minimizer))[0]) > -1e-9
    assert float(f(f.minimizer + 0.01)) > f.minimum  # planted: a point beside the minimizer is told from it


@EACH
def test_starts_are_near_the_centre_and_not_at_it(name):
    f = FAMILIES[name].make(200, 0)
    distances = torch.stack([(start(f, seed) - f.centre).norm() for seed in range(5)]) / f.radius
    assert bool(((distances > 0.7) & (distances < 1.3)).all())
    assert all(float(f.gradient(start(f, seed)).norm()) > 1e-3 for seed in range(5))


@given(seed=SEEDS, name=st.sampled_from(["rastrigin", "logistic"]), size=st.floats(1e-2, 100))
def test_smoothness_bounds_the_hessian(seed, name, size):
    f = FAMILIES[name].make(4, seed)
    x = f.centre + size * (start(f, seed) - f.centre)
    eigenvalues = torch.linalg.eigvalsh(f.hessian(x))
    assert float(eigenvalues.abs().max()) <= f.smoothness * (1 + 1e-12)
    if name == "rastrigin":
        assert float(f.hessian(f.centre)[0, 0]) == pytest.approx(f.smoothness, rel=1e-14)


def test_styblinski_tang_is_that_of_the_literature():
    f = make("styblinski-tang", 3)
    assert f.minimum / 3 == pytest.approx(-39.16616570377142, rel=1e-15)
    assert f.minimizer.tolist() == pytest.approx([-2.903534027771177] * 3, rel=1e-15)


def test_ackley_has_no_derivative_at_its_kink():
    f = Ackley(3)
    zero, u = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    points = torch.stack([u, zero])
    asks = (f.gradient, f.hessian, f.grad_laplacian, lambda x: f.derivative(x, u, 2), lambda x: f.ridges(x, 2))
    for ask in asks:
        with pytest.raises(ValueError, match=r"x = 0 in R\^3 is the kink"):
            ask(zero)
    with pytest.raises(ValueError, match="kink"):
        f.gradient(points)
    assert float(f(zero)) == pytest.approx(0, abs=1e-15)
    tiny = 1e-8 * u
    assert f.gradient(tiny).isfinite().all() and float(f.gradient(tiny).norm()) == pytest.approx(4 / 3**0.5, rel=1e-6)


def test_logistic_regression_on_real_data():
    f = make("logistic-real")
    assert (f.examples, f.dim) == (569, 30) and f.labels.unique().tolist() == [-1.0, 1.0]
    assert close(f.features.mean(0), torch.zeros(30, dtype=torch.float64), 1e-10)
    assert close(f.features.var(0, correction=0), torch.ones(30, dtype=torch.float64))
    x = start(f)
    assert close(f(x), logistic(f, x), 1e-12)
    assert close(f.gradient(x), grad(lambda p: logistic(f, p))(x), 1e-11)
    assert float(f.gradient(f.minimizer).norm()) <= 1e-12
    accuracy = float(((f.features @ f.minimizer).sign() == f.labels).double().mean())
    assert accuracy > 0.97 and 0.0 < f.minimum < 0.15
    with_bias = make("logistic-real", bias=True)
    assert with_bias.dim == 31 and with_bias.minimum < f.minimum
    assert make("logistic-real", 30).dim == 30
    with pytest.raises(ValueError, match="dim is 16: the data have 30 features"):
        make("logistic-real", 16)


def test_real_data_are_loaded_when_asked_for(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "synthetic"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    imported = importlib.import_module("synthetic.problems")
    assert imported.make("logistic", 3).dim == 3
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        imported.make("logistic-real")


@pytest.mark.parametrize("name", ["logistic", "mlp", "mlp-logistic"])
class TestExamples:
    def problem(self, name: str) -> Empirical:
        return FAMILIES[name].make(3, 1)

    def test_the_mean_over_examples_is_the_loss(self, name):
        f = self.problem(name)
        x = torch.stack([start(f, seed) for seed in range(4)])
        losses = f.example_losses(x)
        assert losses.shape == (4, f.examples)
        assert close(losses.mean(-1), f(x), 1e-13)
        assert not close(losses[:, 1:].mean(-1), f(x), 1e-3)  # planted

    def test_minibatches_are_problems(self, name):
        f, indices = self.problem(name), torch.tensor([4, 0, 0])
        x, part = start(f), f.minibatch(indices)
        assert type(part) is type(f) and part.examples == 3 and part.dim == f.dim
        assert close(part(x), f.example_losses(x)[indices].mean(), 1e-13)
        assert close(part.gradient(x), f.example_gradients(x)[indices].mean(0), 1e-12)

    def test_gradient_covariance(self, name):
        f = self.problem(name)
        x = start(f)
        gradients = torch.stack([f.minibatch(torch.tensor([i])).gradient(x) for i in range(f.examples)])
        assert close(f.example_gradients(x), gradients, 1e-12)
        population = torch.cov(gradients.T, correction=0)
        assert close(f.gradient_covariance(x), population)
        assert not close(f.gradient_covariance(x), torch.cov(gradients.T), 1e-3)  # planted: the sample's


def test_a_logistic_minimum_needs_a_penalty():
    with pytest.raises(ValueError, match="l2 is 0"):
        make("logistic", 3, l2=0.0)
    f = make("logistic", 3)
    assert isinstance(f, LogisticRegression) and f.l2 == 0.01


def test_logits_of_any_size_are_finite():
    f = make("logistic", 3, examples=5)
    x = torch.tensor([1e4, -1e4, 1e4], dtype=torch.float64)
    for value in (f(x), f.gradient(x), f.hessian(x), f.derivative(x, x, 5)):
        assert value.isfinite().all()
    network = make("mlp", loss="logistic")
    far = 1e4 * start(network)
    assert network(far).isfinite() and network.derivative(far, far, 6).isfinite()


def test_a_network_of_the_wrong_size_is_told():
    with pytest.raises(ValueError, match=r"dim is 16: 4 inputs and 6 units make hidden \(inputs \+ 2\) \+ 1 = 37"):
        make("mlp", 16)
    assert make("mlp", 37).dim == 37 == make("mlp", inputs=1, hidden=12, dim=37).dim


def test_orders_a_formula_does_not_have():
    f = make("mlp")
    with pytest.raises(ValueError, match="order 3: this problem has orders 1 and 2"):
        f.grad_laplacian(start(f), order=3)


def test_a_series_indexes_values_only():
    line = PowerSeries.line(torch.ones(3), torch.ones(3), 2)
    for index in (0, slice(1), (slice(None), 0)):
        with pytest.raises(TypeError, match=r"takes \[..., index\] only"):
            line[index]
    assert line[..., 1:].coefficients.shape == (3, 2)


def test_predictions_of_separable_problems_stay_linear():
    """In 1000 variables no derivative along a line holds a matrix."""
    f = make("separable", 1000)
    assert isinstance(f, Separable)
    x = start(f)
    assert f.derivative(x.expand(100, 1000), x, 6).shape == (100,)
    assert f.grad_laplacian(x, order=2).shape == (1000,)
    assert torch.equal(f.grad_laplacian(x, order=3), torch.zeros(1000, dtype=torch.float64))
