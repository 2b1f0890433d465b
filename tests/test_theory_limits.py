"""What theory is asked at its limits: refused in words, never answered by a number that nothing has."""

import math

import pytest
import torch

from synthetic import problems
from zobench import methods, theory
from zobench.problems import polynomial
from zobench.theory import Noise
from zobench.theory.laws import _off_diagonal

pytestmark = pytest.mark.usefixtures("one_thread")

F = problems.make("quartic", dim=3)
X = problems.start(F)
MEZO = methods.make("mezo")
EYE = torch.eye(3, dtype=torch.float64)
PREDICTIONS = {
    "bias": theory.bias,
    "mse": theory.mse,
    "covariance_trace": theory.covariance_trace,
    "second_moment": theory.second_moment,
    "descent": lambda *a: theory.descent(*a, lr=0.1),
    "best_lr": theory.best_lr,
    "best_epsilon": lambda *a: theory.best_epsilon(*a, noise=1e-3),
}


@pytest.mark.parametrize("name", PREDICTIONS)
@pytest.mark.parametrize("law", ["orthogonal", "distinct-coordinate"])
def test_no_more_orthogonal_directions_than_dimensions(law, name):
    predict, made = PREDICTIONS[name], methods.make
    with pytest.raises(ValueError, match="n is 4 or more, but in dimension 3 no more than 3 directions are orthogonal"):
        predict(made("mezo", law=law, n=4), F, X)
    line = problems.make("quartic", dim=1)
    with pytest.raises(ValueError, match="n is 2 or more, but in dimension 1"):
        predict(made("mezo", law=law, n=2), line, problems.start(line))
    predict(made("mezo", law=law, n=3), F, X)
    assert theory.equal_budget([made("mezo", law=law, n=4)], F, X, 100)[0].estimator.n == 3


@pytest.mark.parametrize("name", PREDICTIONS)
def test_a_point_is_one_of_the_problem(name):
    predict = PREDICTIONS[name]
    for x, message in [
        (X[:2], r"x has shape \(2,\): give one point of the problem, a tensor \(3,\)"),
        (X[None], r"x has shape \(1, 3\)"),
        ([1.0, 2.0, 3.0], r"x is \[1.0, 2.0, 3.0\]: give one point"),
        (X * math.nan, r"x is \[nan, nan, nan\]: give a finite point"),
    ]:
        with pytest.raises(ValueError, match=message):
            predict(MEZO, F, x)
    with pytest.raises(TypeError, match=r"needs a zobench\.Problem, which knows \.dim and \.gradient; got <function"):
        predict(MEZO, lambda x: x.sum(-1), X)


@pytest.mark.parametrize("epsilon", [1e300, 1e40, 1e-300])
def test_powers_of_epsilon_are_numbers(epsilon):
    for name in ("bias", "mse", "descent"):
        with pytest.raises(ValueError, match=r"epsilon is 1e.*give one from 1e-30 to 1e\+30"):
            PREDICTIONS[name](methods.make("mezo", epsilon=epsilon), F, X)
    for epsilon in (1e-30, 1e30):
        assert math.isfinite(theory.mse(methods.make("mezo", epsilon=epsilon), F, X, 1e100))


@pytest.mark.parametrize("noise", [None, "loud", 1e300, -1.0])
def test_noise_is_a_standard_deviation(noise):
    with pytest.raises(ValueError, match=r"noise is .*: give the standard deviation of one evaluation"):
        theory.mse(MEZO, F, X, noise)


@pytest.mark.parametrize(
    ("minibatch", "message"),
    [
        (1.0, r"has shape \(\)"),
        (torch.ones(3), r"has shape \(3,\)"),
        (torch.ones(3, 2), r"has shape \(3, 2\)"),
        ("S", "is 'S'"),
        (EYE * math.nan, "is not finite"),
        (EYE + torch.diag(torch.ones(2), 1), "is not symmetric"),
        (-EYE, "has an eigenvalue of -1"),
        (EYE + 2 * (torch.ones(3, 3) - EYE), "has an eigenvalue of -1"),
        (EYE - 1e-4 * torch.diag(torch.tensor([0.0, 0.0, 1e4 + 2])), "has an eigenvalue of -0.0002"),
    ],
)
def test_a_covariance_is_one(minibatch, message):
    with pytest.raises(ValueError, match=f"minibatch {message}.*: give the covariance of the gradient"):
        Noise(minibatch=minibatch)


def test_covariances_that_are_taken():
    rows = torch.randn(2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    singular = rows.T @ rows  # of rank 2
    wanted = theory.mse(MEZO, F, X, Noise(minibatch=singular))
    assert theory.mse(MEZO, F, X, Noise(minibatch=singular.numpy())) == wanted
    assert theory.mse(MEZO, F, X, Noise(minibatch=singular.float())) == pytest.approx(wanted, rel=1e-6)
    assert theory.mse(MEZO, F, X, Noise(minibatch=torch.zeros(3, 3))) == theory.mse(MEZO, F, X)
    with pytest.raises(ValueError, match=r"minibatch is \(3, 3\), but the problem has dimension 2"):
        other = problems.make("quartic", dim=2)
        theory.mse(MEZO, other, problems.start(other), Noise(minibatch=singular))
    with pytest.raises(ValueError, match=r"minibatch is \(3, 3\), but the problem has dimension 2"):
        theory.descent(MEZO, other, problems.start(other), 0.1, Noise(minibatch=singular))


def test_coverage_is_of_line_estimators():
    with pytest.raises(TypeError, match="theory covers the coefficients of LineEstimator"):
        theory.coverage(methods.make("mezo", epsilon="auto"), F)


def test_orthogonal_directions_save_what_the_docs_say():
    """(n - 1) / (d - 1) of the variance where q = 1, c_d = d and f is a quadratic."""
    f = problems.make("quadratic", dim=7)
    x = problems.start(f)
    for n in (2, 5, 7):
        free, bound = (
            theory.covariance_trace(methods.make("mezo", law=law, n=n), f, x) for law in ("sphere", "orthogonal")
        )
        assert 1 - bound / free == pytest.approx((n - 1) / 6, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_a_covariance_may_be_asymmetric_by_rounding_alone(scale):
    """In proportion to its largest entry, whatever that is."""
    covariance = scale * (EYE + 0.5)
    assert torch.equal(Noise(minibatch=covariance).covariance(3), covariance)
    for change, message in ((1e-14, ""), (1e-3, "minibatch is not symmetric")):
        moved = covariance.clone()
        moved[0, 1] += change * scale
        if message:
            with pytest.raises(ValueError, match=message):
                Noise(minibatch=moved)
        else:
            Noise(minibatch=moved)
    with pytest.raises(ValueError, match="minibatch has an eigenvalue of -"):
        Noise(minibatch=covariance - 1.5 * scale * EYE)


def test_a_point_in_float32_is_that_point():
    x = X.float()
    for name, predict in PREDICTIONS.items():
        found, wanted = (predict(MEZO, F, point) for point in (x, x.double()))
        assert torch.equal(torch.as_tensor(found), torch.as_tensor(wanted)), name
    third = Cubes()
    for name in ("bias", "mse"):
        found, wanted = (PREDICTIONS[name](methods.make("coordinate"), third, point) for point in (x, x.double()))
        assert torch.equal(torch.as_tensor(found), torch.as_tensor(wanted)), name


class Cubes:
    """sum_i x_i^3, computed in the precision of x."""

    dim, degree = 3, 3

    def __call__(self, x):
        return (x**3).sum(-1)

    def gradient(self, x):
        return 3 * x**2

    def derivative(self, x, u, order):
        return (u**order @ {1: 3 * x**2, 2: 6 * x, 3: torch.full_like(x, 6.0)}[order].to(u.dtype)).to(x.dtype)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_the_second_moment_on_a_linear_function_does_not_depend_on_epsilon(epsilon):
    f, x = polynomial("x0 + 2 x1", dim=2), torch.tensor([0.3, -0.2], dtype=torch.float64)
    assert theory.second_moment(methods.make("mezo", epsilon=epsilon), f, x) == pytest.approx((2 + 2) * 5)
    assert theory.second_moment(methods.make("mezo", epsilon=epsilon, n=4), f, x) == pytest.approx(5 + 3 * 5 / 4)


def test_what_lies_off_the_diagonal_is_left_out_beyond_order_4():
    off = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    lines = theory.Lines(problems.make("sextic", dim=2), torch.tensor([0.4, -0.3], dtype=torch.float64))
    assert _off_diagonal(lines, off, 2, 4) == _off_diagonal(lines, off, 0, 6) == 0.0 != _off_diagonal(lines, off, 2, 2)
