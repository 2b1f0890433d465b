"""Problems: every exact derivative against autograd of the formula written out here, or Gauss-Hermite quadrature."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, hessian, jvp

from synthetic.problems import DEGREES, RidgePolynomial, make, orthogonal, start
from zobench.naming import UnknownNameError

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),  # inside torch.func
]

CASES = [(name, rotated) for name in DEGREES for rotated in (True, False)]
SEEDS = st.integers(0, 10**6)


def plain(f: RidgePolynomial, x: Tensor) -> Tensor:
    """The formula of the module's docstring, term by term."""
    y = x - f.centre
    value = 0.5 * y @ f.hessian @ y
    for power, c in f.ridges.items():
        value = value + c / math.factorial(power) * ((f.ridge_directions @ y) ** power).sum()
    return value


def along(f: RidgePolynomial, x: Tensor, u: Tensor, order: int) -> Tensor:
    """D^order f(x)[u, ..., u] by nesting forward derivatives."""

    def line(point: Tensor) -> Tensor:
        return plain(f, point)

    for _ in range(order):

        def line(point: Tensor, inner=line) -> Tensor:
            return jvp(inner, (point,), (u,))[1]

    return line(x)


def laplacian(f, count: int):
    for _ in range(count):

        def f(point: Tensor, inner=f) -> Tensor:
            return hessian(inner)(point).trace()

    return f


def point_and_direction(f: RidgePolynomial, seed: int) -> tuple[Tensor, Tensor]:
    return start(f, seed), start(f, seed + 1) - f.centre


@given(seed=SEEDS, dim=st.integers(1, 12), case=st.sampled_from(CASES))
def test_value_and_gradient(seed, dim, case):
    f = make(case[0], dim=dim, rotated=case[1], seed=seed)
    x = start(f, seed)
    assert torch.allclose(f(x), plain(f, x), rtol=1e-11, atol=1e-12)
    assert torch.equal(f(x), f.value(x))
    assert torch.allclose(f.gradient(x), grad(lambda p: plain(f, p))(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", DEGREES)
@pytest.mark.parametrize("order", range(1, 8))
def test_directional_derivatives(name, order):
    f = make(name, dim=4)
    x, u = point_and_direction(f, 3)
    if order < 7:
        assert torch.allclose(f.derivative(x, u, order), along(f, x, u, order), rtol=1e-10, atol=1e-11)
    if order > f.degree:
        assert float(f.derivative(x, u, order)) == 0.0
    if order == f.degree:
        assert abs(float(f.derivative(x, u, order))) > 1e-3


@pytest.mark.parametrize("name", DEGREES)
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_of_iterated_laplacians(name, order):
    f = make(name, dim=3)
    x = start(f, 5)
    wanted = grad(laplacian(lambda p: plain(f, p), order))(x)
    assert torch.allclose(f.grad_laplacian(x, order=order), wanted, rtol=1e-9, atol=1e-9)
    if 2 * order + 1 <= f.degree:
        assert float(wanted.norm()) > 1e-2
    assert torch.count_nonzero(f.grad_laplacian(x, order=3)) == 0  # degree 7 and more


@pytest.mark.parametrize("name", DEGREES)
@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize(("a", "b"), [(2, 2), (2, 4), (2, 6), (3, 3), (3, 5), (4, 4), (4, 6), (5, 5), (6, 6)])
def test_line_products_against_gauss_hermite(name, dim, a, b):
    f = make(name, dim=dim, seed=2)
    x = start(f, 2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    u = torch.tensor(list(itertools.product(nodes, repeat=dim)), dtype=torch.float64)
    p = torch.tensor(list(itertools.product(weights / weights.sum(), repeat=dim)), dtype=torch.float64).prod(-1)
    wanted = float(p @ (f.derivative(x, u, a) * f.derivative(x, u, b)))
    assert f.line_product(x, a, b) == pytest.approx(wanted, rel=1e-10, abs=1e-10)
    if max(a, b) <= f.degree and (a, b) != (3, 5):
        assert f.line_product(x, a, b) != pytest.approx(1.02 * wanted, rel=1e-6)  # planted


@pytest.mark.parametrize("ridges", [{3: 1.0}, {4: 2.0}, {6: 5.0}, {4: 1.0, 6: 2.0}, {3: 1.0, 6: 2.0}, {3: 1.0, 4: 1.0}])
def test_any_ridges_of_the_documented_powers(ridges):
    base = make("sextic", dim=3)
    f = RidgePolynomial("own", base.hessian, base.ridge_directions, base.centre, ridges)
    x, u = point_and_direction(f, 1)
    assert torch.allclose(f(x), plain(f, x), rtol=1e-11)
    assert torch.allclose(f.gradient(x), grad(lambda p: plain(f, p))(x), rtol=1e-11)
    for order in (2, 3, 5):
        assert torch.allclose(f.derivative(x, u, order), along(f, x, u, order), rtol=1e-10, atol=1e-11)


@given(seed=SEEDS, dim=st.integers(1, 12), condition=st.floats(1, 1e6), name=st.sampled_from(list(DEGREES)))
def test_the_minimum_is_declared_where_the_docstring_promises_it(seed, dim, condition, name):
    f = make(name, dim=dim, condition=condition, seed=seed)
    assert f.minimum == (None if name == "cubic" else 0.0)


@given(
    seed=SEEDS,
    condition=st.floats(1, 1e3),
    name=st.sampled_from(["quadratic", "quartic", "sextic"]),
    cubic=st.floats(-5, 20),
    size=st.floats(1e-3, 30),
)
def test_a_declared_minimum_is_one(seed, condition, name, cubic, size):
    f = make(name, dim=5, condition=condition, cubic=cubic, seed=seed)
    assert abs(float(f(f.centre))) < 1e-28
    assert torch.count_nonzero(f.gradient(f.centre)) == 0
    if f.minimum is None:
        return
    away = size * torch.cat((orthogonal(seed, 5), -orthogonal(seed, 5), f.ridge_directions, -f.ridge_directions))
    assert float(f(f.centre + away).min()) >= -1e-12
    softest = torch.linalg.eigh(f.hessian).eigenvectors.T
    assert float(f(f.centre + size * torch.cat((softest, -softest))).min()) >= -1e-12


def test_a_minimum_is_not_declared_where_there_is_none():
    """Ridges along the axes, the cubic above its bound: points below the centre exist, and none is promised."""
    base = make("quartic", dim=3, condition=1.0, cubic=100.0)
    assert base.ridges[3] == pytest.approx(math.sqrt(12.0))
    f = RidgePolynomial("deep", base.hessian, base.ridge_directions, base.centre, {3: 2 * base.ridges[3], 4: 4.0})
    ray = torch.linspace(-5, 5, 401, dtype=torch.float64)[:, None] * f.ridge_directions[0]
    assert float(f(f.centre + ray).min()) < -0.1
    assert f.minimum is None
    cubic = make("cubic", dim=3)
    assert float(cubic(cubic.centre - 50 * cubic.ridge_directions[0])) < -1
    assert cubic.minimum is None


@given(seed=SEEDS, dim=st.integers(1, 6), name=st.sampled_from(list(DEGREES)))
def test_batches_are_loops(seed, dim, name):
    f = make(name, dim=dim, seed=seed)
    x = torch.stack([start(f, seed + i) for i in range(6)]).reshape(2, 3, dim)
    values, gradients = f(x), f.gradient(x)
    assert values.shape == (2, 3) and gradients.shape == (2, 3, dim)
    lines = f.derivative(x, x[:, :1], 3)
    assert lines.shape == (2, 3)
    for i, j in itertools.product(range(2), range(3)):
        assert torch.allclose(values[i, j], f(x[i, j]), rtol=1e-12, atol=1e-14)
        assert torch.allclose(gradients[i, j], f.gradient(x[i, j]), rtol=1e-12, atol=1e-13)
        assert torch.allclose(lines[i, j], f.derivative(x[i, j], x[i, 0], 3), rtol=1e-11, atol=1e-12)
        assert torch.allclose(f.grad_laplacian(x)[i, j], f.grad_laplacian(x[i, j]), rtol=1e-12, atol=1e-12)
    assert f.derivative(x[0, 0], torch.eye(dim, dtype=torch.float64), 1).shape == (dim,)


@given(seed=SEEDS, dim=st.integers(2, 20), condition=st.floats(1, 1e6), rotated=st.booleans())
def test_condition_number_and_rotation(seed, dim, condition, rotated):
    f = make("quadratic", dim=dim, condition=condition, rotated=rotated, seed=seed)
    eigenvalues = torch.linalg.eigvalsh(f.hessian)
    assert float(eigenvalues[-1]) == pytest.approx(1.0) == f.smoothness
    assert float(eigenvalues[0]) == pytest.approx(1 / condition, rel=1e-6)
    steps = eigenvalues[1:] / eigenvalues[:-1]
    assert torch.allclose(steps, torch.full_like(steps, condition ** (1 / (dim - 1))), rtol=1e-5)
    apart = f.hessian - torch.diag(f.hessian.diagonal())
    assert torch.equal(f.hessian, f.hessian.T)
    if not rotated:
        assert torch.count_nonzero(apart) == 0
    elif condition > 2:
        assert float(apart.abs().max()) > 1e-3
    assert torch.allclose(f.ridge_directions @ f.ridge_directions.T, torch.eye(dim, dtype=torch.float64), atol=1e-12)


def test_random_rotations_have_no_preferred_sign():
    """Without the sign of R, QR would give a matrix that is not uniform: its diagonal would be negative."""
    diagonal = torch.stack([orthogonal(key, 3).diagonal() for key in range(1000)])
    z = diagonal.mean(0) / (diagonal.std(0) / math.sqrt(1000))
    assert float(z.abs().max()) < 5
    assert torch.allclose(diagonal.square().mean(0), torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.05)


def test_seeds_and_starts():
    one, two, again = make("quartic", seed=1), make("quartic", seed=2), make("quartic", seed=1)
    assert torch.equal(one.hessian, again.hessian) and torch.equal(one.centre, again.centre)
    assert not torch.allclose(one.hessian, two.hessian) and not torch.allclose(one.centre, two.centre)
    far = [float((start(make("quartic", dim=400), seed) - make("quartic", dim=400).centre).norm()) for seed in range(9)]
    assert all(0.8 < distance < 1.2 for distance in far)
    assert len(set(far)) == 9
    assert [make(name).degree for name in DEGREES] == [2, 3, 4, 6]


def test_errors():
    with pytest.raises(UnknownNameError, match="Did you mean 'quartic'"):
        make("quartik")
    for dim, condition in [(0, 10.0), (-1, 10.0), (4, 0.5), (4, math.nan)]:
        with pytest.raises(ValueError, match=f"dim is {dim}, condition {condition}"):
            make("quartic", dim=dim, condition=condition)


def test_a_negative_quartic_is_no_riddle():
    """A coefficient the docstring does not exclude either works or is named in the error."""
    try:
        assert make("quartic", quartic=-1.0).minimum is None
    except ValueError as error:
        assert "quartic" in str(error)
