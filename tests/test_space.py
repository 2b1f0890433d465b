"""Spaces: what moves the parameters moves them as it says, in as few sweeps as it says."""

import pytest
import torch
from bowl import GAUSSIAN, METHODS, Bowl, line_sum, relative, twins
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zobench import SGD, CentralStencil, Combination, FlatSpace, LineEstimator, ModuleSpace, derive, methods, query
from zobench.groups import decays
from zobench.law import LAWS

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("dtype", "epsilon", "tolerance"), [(torch.float64, 1e-2, 1e-12), (torch.float32, 0.1, 2e-4)])
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", METHODS)
def test_both_spaces_give_the_same_coefficients_and_the_same_step(method, law, n, dtype, epsilon, tolerance):
    module, space, flat = twins(dtype)
    estimator = methods.make(method, law=law, n=n, epsilon=epsilon)
    for step in range(3):
        key = derive("step", step)
        ours = query(space, estimator, module.loss, key, ()).gradient
        theirs = query(flat, estimator, module.of, key, ()).gradient
        (one,), (other,) = ours.terms, theirs.terms
        assert (one.law, one.key) == (other.law, other.key)
        scale = float(other.coefficients.abs().max())
        # losses are added in another order: 1e-16 of a loss of about 10, over epsilon
        assert float((one.coefficients - other.coefficients).abs().max()) < 100 * tolerance * max(scale, 1.0)
        assert torch.allclose(space.dense(ours), flat.dense(ours), rtol=1e-12, atol=1e-12)
        space.step_(ours, -0.05)
        flat.step_(theirs, -0.05)
        assert relative(space.vector(), flat.x) < tolerance
    _, fresh, _ = twins(dtype)
    assert relative(space.vector(), fresh.vector()) > 1e-3  # it did move


@pytest.mark.parametrize("law", LAWS)
@given(
    key=st.integers(0, 2**63 - 1), values=st.lists(st.floats(-10, 10), min_size=1, max_size=3), scale=st.floats(-2, 2)
)
def test_a_step_adds_scale_times_dense(law, key, values, scale):
    _, space, flat = twins()
    before, combination = space.vector(), line_sum(LAWS[law], key, *values) + line_sum(GAUSSIAN, key + 1, 0.5)
    wanted = before + scale * space.dense(combination)
    for either in (space, flat):
        either.step_(combination, scale)
    assert torch.allclose(space.vector(), wanted, rtol=1e-12, atol=1e-12)
    assert torch.allclose(flat.x, wanted, rtol=1e-12, atol=1e-12)


def decaying_of(space):
    """1 for each entry that decays, 0 for the others."""
    segments = space.layout.segments
    return torch.cat([torch.full((s.size,), float(decays(s.name, len(s.shape)))) for s in segments]).double()


@pytest.mark.parametrize("law", LAWS)
@given(scale=st.floats(-2, 2), shrink=st.floats(0, 1), other=st.booleans())
def test_a_step_from_a_perturbed_point_is_a_step_from_the_parameters(law, scale, shrink, other):
    """The update is fused with the way back: along the plan's own line, and along another."""
    module, space, flat = twins()
    decaying = decaying_of(space)
    plan = LineEstimator(LAWS[law], CentralStencil(), 0.3).ask(9, ())
    combination = line_sum(LAWS[law], 10 if other else 9, 1.7)
    wanted = (1 - shrink * decaying) * space.vector() + scale * space.dense(combination)
    space.losses(module.loss, plan)
    space.step_(combination, scale, shrink)
    assert torch.allclose(space.vector(), wanted, rtol=1e-12, atol=1e-12)
    flat.losses(module.of, plan)
    flat.step_(combination, scale, shrink)
    assert torch.allclose(flat.x, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("law", LAWS)
def test_an_update_onto_the_perturbed_point_still_shrinks_from_the_parameters(law):
    """x - e u is where the plan ends: a step of exactly -e u undoes nothing there, yet the decay acts on x alone."""
    module, space, _ = twins()
    epsilon = 0.25
    decaying = decaying_of(space)
    combination = line_sum(LAWS[law], 9, epsilon * LAWS[law].unit(space.layout.dim) ** 2)
    wanted = (1 - 0.5 * decaying) * space.vector() - space.dense(combination)
    space.losses(module.loss, LineEstimator(LAWS[law], CentralStencil(), epsilon).ask(9, ()))
    space.step_(combination, -1.0, shrink=0.5)
    assert torch.allclose(space.vector(), wanted, rtol=1e-12, atol=1e-12)


def test_epsilon_perturbs_one_coordinate_by_epsilon():
    module, space, flat = twins()
    x, seen = space.vector(), []

    def look(points: Tensor) -> Tensor:
        seen.append(points.clone())
        return module.of(points)

    query(flat, methods.make("coordinate", epsilon=0.25), look, 7, ())
    query(space, methods.make("coordinate", epsilon=0.25), lambda: look(space.vector()), 7, ())
    for points in (seen[:2], seen[2:]):
        up, down = (point - x for point in points)
        assert int(up.count_nonzero()) == int((up.abs() > 1e-12).sum()) == 1
        assert float(up.abs().max()) == pytest.approx(0.25, rel=1e-12)
        assert torch.allclose(up, -down, atol=1e-14)


@pytest.mark.parametrize(
    ("method", "n", "sweeps"),
    [("mezo", 1, 3), ("kerzoo", 1, 3), ("forward", 1, 2), ("richardson", 1, 5), ("mezo", 3, 7), ("forward", 3, 4)],
)
def test_sweeps_are_counted(method, n, sweeps):
    module, space, _ = twins()
    for step in range(1, 4):
        told = query(space, methods.make(method, n=n), module.loss, step, ())
        SGD(1e-3, weight_decay=0.1).apply_(space, told.gradient, 0)
        assert space.sweeps == step * sweeps
    space.settle_()
    assert space.sweeps == 3 * sweeps  # nothing was pending


class WrongKey(ModuleSpace):
    """Planted: the update goes along other directions than those that were looked along."""

    def step_(self, combination: Combination, scale: float = 1.0, *how) -> None:
        terms = tuple(t._replace(key=derive(t.key, "another")) for t in combination.terms)
        super().step_(Combination(terms), scale, *how)


class WrongSign(ModuleSpace):
    """Planted: the update goes uphill."""

    def step_(self, combination: Combination, scale: float = 1.0, *how) -> None:
        super().step_(combination, -scale, *how)


class NeverBack(ModuleSpace):
    """Planted: the update forgets the way back from the last point."""

    def step_(self, combination: Combination, scale: float = 1.0, *how) -> None:
        self.engine.point = {}
        super().step_(combination, scale, *how)


class Flat(FlatSpace):
    def __init__(self, module: Bowl) -> None:
        super().__init__(ModuleSpace(module).vector())


def share_left(space_type: type, method: str, epsilon: float = 0.3) -> float:
    module = Bowl().eval()
    space = space_type(module)
    f = module.of if isinstance(space, FlatSpace) else module.loss
    rule, memory, estimator = SGD(0.03), 0, methods.make(method, epsilon=epsilon)
    for step in range(200):
        told = query(space, estimator, f, derive("descent", step), ())
        memory = rule.apply_(space, told.gradient, memory)
    end = space.x if isinstance(space, FlatSpace) else space.vector()
    return float((module.of(end) / Bowl().loss()).detach())


@pytest.mark.parametrize("method", ["mezo", "richardson", "coordinate"])
def test_two_hundred_steps_descend_and_planted_errors_do_not(method):
    assert abs(share_left(ModuleSpace, method)) < 0.3
    assert abs(share_left(Flat, method)) < 0.3
    for wrong in (WrongKey, WrongSign, *([NeverBack] if method != "coordinate" else [])):
        try:
            assert not abs(share_left(wrong, method)) < 0.9, wrong
        except FloatingPointError:  # diverged to infinity: seen
            continue


def test_a_direction_that_a_combination_holds_twice_moves_by_the_sum():
    for law in LAWS.values():
        _, space, flat = twins()
        one = line_sum(law, 9, 1.5)
        wanted = space.vector() + 0.1 * 1.2 * space.dense(one)
        for each in (space, flat):
            each.step_(one + 0.2 * one, 0.1)
        assert torch.allclose(space.dense(one + 0.2 * one), 1.2 * space.dense(one), rtol=1e-12)
        assert torch.allclose(space.vector(), wanted, rtol=1e-12, atol=1e-12)
        assert torch.allclose(flat.x, wanted, rtol=1e-12, atol=1e-12)
