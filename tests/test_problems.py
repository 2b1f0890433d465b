"""Problems: every exact derivative against autograd of the formula written out here, or Gauss-Hermite quadrature."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import grad, hessian, jvp

from synthetic.problems import (
    DEGREES,
    NAMES,
    Ackley,
    Levy,
    Rastrigin,
    RidgePolynomial,
    Rosenbrock,
    StyblinskiTang,
    make,
    orthogonal,
    start,
    table,
)
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
    value = 0.5 * y @ f.curvature @ y
    for power, c in f.powers.items():
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
@pytest.mark.parametrize("order", range(1, 7))
def test_ridges_are_the_directional_derivatives(name, order):
    f = make(name, dim=5, seed=2)
    x, u = point_and_direction(f, 3)
    coefficients, directions = f.ridges(x, order)
    wanted = f.derivative(x, u, order)
    assert torch.allclose(coefficients @ (directions @ u) ** order, wanted, rtol=1e-11, atol=1e-12)
    if order <= f.degree and order != 5:
        assert not torch.allclose(1.0001 * coefficients @ (directions @ u) ** order, wanted, rtol=1e-6)  # planted


@pytest.mark.parametrize("name", DEGREES)
def test_hessian(name):
    f = make(name, dim=4, seed=2)
    x = start(f, 2)
    assert torch.allclose(f.hessian(x), hessian(lambda p: plain(f, p))(x), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("ridges", [{3: 1.0}, {4: 2.0}, {6: 5.0}, {4: 1.0, 6: 2.0}, {3: 1.0, 6: 2.0}, {3: 1.0, 4: 1.0}])
def test_any_ridges_of_the_documented_powers(ridges):
    base = make("sextic", dim=3)
    f = RidgePolynomial("own", base.curvature, base.ridge_directions, base.centre, ridges)
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
    softest = torch.linalg.eigh(f.curvature).eigenvectors.T
    assert float(f(f.centre + size * torch.cat((softest, -softest))).min()) >= -1e-12


def test_a_minimum_is_not_declared_where_there_is_none():
    """Ridges along the axes, the cubic above its bound: points below the centre exist, and none is promised."""
    base = make("quartic", dim=3, condition=1.0, cubic=100.0)
    assert base.powers[3] == pytest.approx(math.sqrt(12.0))
    f = RidgePolynomial("deep", base.curvature, base.ridge_directions, base.centre, {3: 2 * base.powers[3], 4: 4.0})
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
    eigenvalues = torch.linalg.eigvalsh(f.curvature)
    assert float(eigenvalues[-1]) == pytest.approx(1.0) == f.smoothness
    assert float(eigenvalues[0]) == pytest.approx(1 / condition, rel=1e-6)
    steps = eigenvalues[1:] / eigenvalues[:-1]
    assert torch.allclose(steps, torch.full_like(steps, condition ** (1 / (dim - 1))), rtol=1e-5)
    apart = f.curvature - torch.diag(f.curvature.diagonal())
    assert torch.equal(f.curvature, f.curvature.T)
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
    assert torch.equal(one.curvature, again.curvature) and torch.equal(one.centre, again.centre)
    assert not torch.allclose(one.curvature, two.curvature) and not torch.allclose(one.centre, two.centre)
    far = [float((start(make("quartic", dim=400), seed) - make("quartic", dim=400).centre).norm()) for seed in range(9)]
    assert all(0.8 < distance < 1.2 for distance in far)
    assert len(set(far)) == 9
    assert [make(name).degree for name in DEGREES] == [2, 3, 4, 6]


def test_errors():
    with pytest.raises(UnknownNameError, match="Did you mean 'quartic'"):
        make("quartik")
    for dim, condition in [(0, 10.0), (-1, 10.0), (4, 0.5)]:
        with pytest.raises(ValueError, match=f"dim is {dim}, condition {condition}"):
            make("quartic", dim=dim, condition=condition)


def test_a_negative_quartic_is_no_riddle():
    """A coefficient the docstring does not exclude either works or is named in the error."""
    try:
        assert make("quartic", quartic=-1.0).minimum is None
    except ValueError as error:
        assert "quartic" in str(error)


def test_the_table_has_a_row_for_each_name():
    assert [row.name for row in table()] == list(NAMES)
    assert len(set(NAMES)) == len(NAMES) == 13
    for row in table():
        f = make(row.name)
        assert f.name == row.name and row.line and f.dim >= 16
        assert f.gradient(start(f)).shape == (f.dim,)
        assert row.options.get("dim", 16) in (16, None)


@pytest.mark.parametrize("name", NAMES)
def test_every_name_takes_its_options_only(name):
    with pytest.raises(UnknownNameError, match=f"option of problem '{name}': 'conditoin'"):
        make(name, conditoin=3.0)
    has = {row.name: row.options for row in table()}[name]
    for option, value in {"condition": 3.0, "rotated": False}.items():
        if option in has:
            assert make(name, **{option: value}) is not None
        else:
            with pytest.raises(UnknownNameError, match=f"option of problem '{name}': '{option}'"):
                make(name, **{option: value})
    assert make(name, None, None, None).dim == make(name).dim


def test_options_may_be_given_in_order():
    one, two = make("quartic", 5, 3.0, False, seed=2), make("quartic", dim=5, condition=3.0, rotated=False, seed=2)
    assert torch.equal(one.curvature, two.curvature)
    assert not torch.equal(one.curvature, make("quartic", 5, 4.0, False, seed=2).curvature)
    assert make("separable", 7, 3.0, degree="quartic").degree == 4


@pytest.mark.parametrize("kind", [Ackley, Levy, Rastrigin, Rosenbrock, StyblinskiTang])
def test_problems_without_data_are_their_repr(kind):
    f = kind(dim=3)
    assert eval(repr(f)) == f and f != kind(dim=4)
    assert repr(make(f.name, 3)) == repr(f)
    for dim in (0, -1, 2.5, True):
        with pytest.raises(ValueError, match=f"dim is {dim}: {f.name} wants"):
            kind(dim)


def test_rosenbrock_wants_neighbours():
    with pytest.raises(ValueError, match="rosenbrock wants 2 or more variables"):
        make("rosenbrock", 1)
