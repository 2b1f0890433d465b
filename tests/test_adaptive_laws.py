"""Laws that learn from the steps before: the cone round their average, and the diagonal of curvatures."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from engines import Net, loss_of
from torch import Tensor

from zobench import (
    Adaptive,
    CentralStencil,
    Combination,
    Cone,
    Diagonal,
    FlatSpace,
    LineEstimator,
    ModuleSpace,
    Term,
    ThreePointStencil,
    methods,
    optim,
    query,
)
from zobench.law.adaptive import Past
from zobench.law.cone import LENGTH
from zobench.layout import CPU, Layout

pytestmark = pytest.mark.usefixtures("one_thread")

F64 = torch.float64
D = 6
LAYOUT = Layout.flat(D, F64, CPU)
SLOPE = torch.linspace(-1, 2, D, dtype=F64)
N = 40_000


def mean_z(rows: Tensor, wanted: Tensor) -> float:
    return float(((rows.mean(0) - wanted).abs() / (rows.std(0) / len(rows) ** 0.5 + 1e-12)).max())


def dense(space, law, key: int) -> Tensor:
    return space.dense(Combination((Term(law, key, torch.ones(1, dtype=F64)),)))


def run(estimator, f, count: int, x: Tensor):
    """Each step's key, direction, slope and law."""
    space, state = FlatSpace(x.clone()), estimator.init()
    for key in range(60, 60 + count):
        told = query(space, estimator, f, key, state)
        law = told.rounds[0].plan.law
        yield key, dense(space, law, key), told, law
        space.step_(told.gradient, -0.02)
        state = told.state


def test_a_cone_is_that_round_the_average_of_the_estimates_before():
    """The recursion by hand: u = sin z + cos sqrt(d) m / |m|, m <- beta m + (1 - beta) c u."""
    law, m = Cone(1.2, 0.8, 0), torch.zeros(D, dtype=F64)
    estimator = Adaptive(LineEstimator(law, CentralStencil(), 0.1))
    for key, u, told, _ in run(estimator, lambda x: (x**2 @ SLOPE) + x @ SLOPE, 6, torch.ones(D, dtype=F64)):
        z = law.bind(LAYOUT, None).direction(key, 0, LAYOUT, ())(LAYOUT.blocks[0])
        wanted = z if not bool(m.any()) else math.sin(1.2) * z + math.cos(1.2) * math.sqrt(D) * m / m.norm()
        assert torch.allclose(u, wanted, rtol=1e-12)
        (c,) = told.gradient.coefficients.tolist()
        m = 0.8 * m + 0.2 * c * wanted


def in_batch(law, buffers: dict[str, Tensor]) -> Tensor:
    bound = law.bind(LAYOUT, None)
    for name, value in buffers.items():
        bound.buffers[name].copy_(value)
    return bound.direction(4, 0, LAYOUT, (N,))(LAYOUT.blocks[0])


def test_the_moments_in_a_cone():
    """E[u u^T | m] = sin^2 I + cos^2 d m m^T / |m|^2, so the mean under a linear f is biased towards m."""
    m, theta = torch.tensor([0.0, 0, 0, 0, 3, 4], dtype=F64), 1.2
    u = in_batch(Cone(theta), {"x": m, LENGTH: m.norm()})
    along = m / m.norm()
    rows = (u @ SLOPE)[:, None] * u
    sine, cosine = math.sin(theta) ** 2, math.cos(theta) ** 2
    wanted = sine * SLOPE + D * cosine * along * (along @ SLOPE)
    assert mean_z(rows, wanted) < 5
    assert mean_z(rows, sine * SLOPE + cosine * along * (along @ SLOPE)) > 5  # planted: without sqrt(d)
    assert mean_z(u.square().sum(-1, keepdim=True), torch.tensor([float(D)], dtype=F64)) < 5


def test_the_share_of_the_average_warms_up():
    law = Cone(beta=0.99, warm=2000)
    assert law.beta_at(1) == law.beta_at(200) == pytest.approx(0.1)
    assert law.beta_at(2000) == law.beta_at(9999) == 0.99
    assert law.beta_at(1999) == pytest.approx(0.99 - 0.89 / 9**3, abs=1e-4)
    rising = [law.beta_at(step) for step in range(200, 2001, 100)]
    assert all(a < b for a, b in pairwise(rising))
    assert Cone(beta=0.95, warm=0).beta_at(1) == 0.95 and Cone(beta=0.05).beta_at(1) == 0.05


QUADRATIC = torch.tensor([[30.0, 2.0], [2.0, 1.0]], dtype=F64)
AT = torch.tensor([0.4, -1.3], dtype=F64)


def exact(smooth: float, mismatch: bool) -> Tensor:
    """E[c u'] on x^T A x / 2 by quadrature, u' = z / sqrt(H): of the probe's H = 1, or of the one that its own losses
    have changed, as in the published code.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    z = torch.cartesian_prod(torch.tensor(nodes), torch.tensor(nodes))
    p = torch.tensor(np.outer(weights, weights).flatten() / weights.sum() ** 2)
    slope, curvature = z @ (QUADRATIC @ AT), ((z @ QUADRATIC) * z).sum(-1).abs()
    h = 1 + smooth * (curvature[:, None] / 2 * z**2 - 1) if mismatch else torch.ones_like(z)
    return p @ (slope[:, None] * z / h.sqrt())


def test_a_step_along_another_diagonal_than_its_points_is_biased_on_quadratics():
    """With the same H the mean of an estimate is H^-1 grad f; with the published pair it is another one."""
    gradient = QUADRATIC @ AT
    assert torch.allclose(exact(0.1, False), gradient, rtol=1e-9)
    published = exact(0.1, True)
    assert float((published - gradient).norm() / gradient.norm()) > 0.2
    small = exact(1e-8, True)  # the published constant: the two are equal to the order of s times the curvature
    assert float((small - gradient).norm() / gradient.norm()) < 1e-5
    f = lambda x: ((x @ QUADRATIC) * x).sum(-1) / 2  # noqa: E731
    space = FlatSpace(AT.clone())
    told = query(space, methods.make("hizoo", smooth=0.1, epsilon=0.1), f, 3, Past(), (N,))
    rows = space.dense(told.gradient)
    assert mean_z(rows, gradient) < 5 < mean_z(rows, published)


def test_the_diagonal_is_the_average_of_curvature_times_square():
    """The recursion by hand, on a quadratic, where c is u^T A u / 2; points and step see the H of the step before."""
    a = torch.diag(torch.tensor([9.0, 1.0, 4.0, 1.0, 1.0, 2.0], dtype=F64))
    f = lambda x: ((x @ a) * x).sum(-1) / 2  # noqa: E731
    estimator, h = Adaptive(LineEstimator(Diagonal(0.2), ThreePointStencil(), 0.1)), torch.ones(D, dtype=F64)
    for key, u, told, law in run(estimator, f, 6, torch.ones(D, dtype=F64)):
        plain = Diagonal(0.2).bind(LAYOUT, None).direction(key, 0, LAYOUT, ())(LAYOUT.blocks[0])
        assert torch.allclose(u, plain / h.sqrt(), rtol=1e-10)
        assert told.gradient.terms[0].law == law  # the step goes along the direction of its points
        h = 0.8 * h + 0.2 * h * plain**2 * float(u @ a @ u) / 2


def test_the_moments_under_a_diagonal():
    h = torch.tensor([4.0, 1.0, 0.25, 9.0, 1.0, 2.0], dtype=F64)
    u = in_batch(Diagonal(), {"x": h})
    rows = (u @ SLOPE)[:, None] * u
    assert mean_z(rows, SLOPE / h) < 5 < mean_z(rows, SLOPE / h.sqrt())


LEARNING = ("conmezo:warm=3", "hizoo:smooth=0.01", "adalezo", "sparse-mezo", "lozo:every=2", "subzero:rank=2:every=2")


@pytest.mark.parametrize("method", LEARNING)
def test_an_optimizer_goes_on_from_its_state(method):
    def fresh():
        module = Net(dtype=F64)
        return module, optim.ZerothOrder(module.named_parameters(), methods.parse(method, epsilon=0.05), 1e-3)

    (whole, one), (first, two), (second, three) = fresh(), fresh(), fresh()
    for _ in range(5):
        one.step(loss_of(whole))
    for _ in range(3):
        two.step(loss_of(first))
    two.space.settle_()
    second.load_state_dict(first.state_dict())
    three.load_state_dict(two.state_dict())
    for _ in range(2):
        two.step(loss_of(first)), three.step(loss_of(second))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    for opt in (one, two, three):
        opt.space.settle_()
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


def test_a_loss_that_is_not_finite_teaches_nothing():
    estimator = methods.make("conmezo", epsilon=0.1)
    space = FlatSpace(torch.ones(D, dtype=F64))
    told = query(space, estimator, lambda x: x.sum(-1) * torch.inf, 1, estimator.init())
    assert told.state == Past(1, 1, ())
    query(space, estimator, lambda x: x.sum(-1), 2, told.state)
    assert float(space.snapshots["Cone(theta=1.35, beta=0.99, warm=2000) /length"][0]) == 0.0


@pytest.mark.parametrize("method", ["conmezo", "hizoo", "adalezo"])
def test_a_space_without_the_steps_before_is_refused(method):
    estimator = methods.make(method, epsilon=0.1)
    space = ModuleSpace(Net(dtype=F64))
    loss, state = loss_of(space.module), estimator.init()
    for key in range(3):
        state = query(space, estimator, loss, key, state).state
    with pytest.raises(ValueError, match=r"does not hold the buffers of .* at step 3: steps go on in the space"):
        query(ModuleSpace(Net(dtype=F64)), estimator, loss, 3, state)
    with pytest.raises(ValueError, match=r"holds the buffers of .* at step 2, not those of step 0"):
        query(space, estimator, loss, 3, estimator.init())


def test_what_cannot_be_is_named():
    with pytest.raises(ValueError, match="theta is 0: give the angle"):
        Cone(0)
    with pytest.raises(ValueError, match="beta is 1: give the share of the average"):
        Cone(beta=1)
    with pytest.raises(ValueError, match="smooth is 1: give the weight of the last curvature"):
        Diagonal(1)
    with pytest.raises(ValueError, match="Diagonal needs f"):
        query(FlatSpace(torch.ones(3, dtype=F64)), Adaptive(LineEstimator(Diagonal(), CentralStencil(), 0.1)),
              lambda x: x.sum(-1), 1, Past())  # fmt: skip
