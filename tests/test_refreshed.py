"""Laws of which a part is held for several steps: low rank with a lazy factor, orthonormal subspaces."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from synthetic import problems
from zobench import (
    CentralStencil,
    Combination,
    FlatSpace,
    Gaussian,
    LineEstimator,
    LowRank,
    RandomMask,
    Refreshed,
    Subspace,
    Term,
    derive,
    estimate,
    methods,
    query,
    theory,
)
from zobench.law import subspace
from zobench.law.memo import memo
from zobench.layout import Layout

pytestmark = pytest.mark.usefixtures("one_thread")

F64 = torch.float64
SHAPES = {"weight": (4, 3), "bias": (5,)}
LAYOUT = Layout.of(SHAPES)
SLOPE = torch.linspace(-1, 2, 17, dtype=F64)
ZERO = torch.zeros(17, dtype=F64)
LAWS = [LowRank(2), Subspace(2), RandomMask(density=0.3)]


def linear(x: Tensor) -> Tensor:
    return x @ SLOPE


def of(law, every: int = 3, n: int = 1) -> Refreshed:
    return Refreshed(LineEstimator(law, CentralStencil(), 0.1, n), every)


def mean_z(rows: Tensor, wanted: Tensor) -> float:
    return float(((rows.mean(0) - wanted).abs() / (rows.std(0) / len(rows) ** 0.5 + 1e-12)).max())


def second_z(rows: Tensor, wanted: float) -> float:
    squares = rows.square().sum(-1)
    return abs(float((squares.mean() - wanted) / squares.std()) * math.sqrt(len(squares)))


def steps(estimator, count: int):
    """(plan, estimate) of each step, as dense vectors: the direction, and what is made of it under a linear f."""
    space, state = FlatSpace(ZERO, LAYOUT), estimator.init()
    for key in range(100, 100 + count):
        told = query(space, estimator, linear, key, state)
        state = told.state
        plan = told.rounds[0].plan
        one = torch.ones(1, dtype=F64)
        yield space.dense(Combination((Term(plan.law, plan.key, one),))), space.dense(told.gradient), plan.law


@pytest.mark.parametrize("law", LAWS, ids=repr)
def test_a_part_is_held_between_refreshes(law):
    keys = [drawn.refresh for _, _, drawn in steps(of(law), 7)]
    assert len({*keys}) == 3 and keys == [keys[0]] * 3 + [keys[3]] * 3 + [keys[6]]
    fresh = [u for u, _, _ in steps(of(law), 4)]
    assert not any(torch.allclose(a, b) for i, a in enumerate(fresh) for b in fresh[:i])


def column_spaces(us: list[Tensor]) -> int:
    """Dimension of the rows that the matrices of these directions span together."""
    return int(torch.linalg.matrix_rank(torch.cat([u[:12].view(4, 3) for u in us])))


def test_the_right_factor_is_the_one_that_is_held():
    us = [u for u, _, _ in steps(of(LowRank(1)), 6)]
    assert column_spaces(us[:3]) == column_spaces(us[3:]) == 1 and column_spaces(us) == 2


class PublishedDefect(Refreshed):
    """At a refresh, points draw V and then U from one generator, and the step draws only U: it is another U."""

    def tell(self, plan, losses, state):
        told = super().tell(plan, losses, state)
        if state.step % self.every:
            return told
        (term,) = told.gradient.terms
        return replace(told, gradient=Combination((term._replace(key=derive(term.key, "U first")),)))


@pytest.mark.parametrize("law", [LowRank(2), Subspace(2)], ids=repr)
@pytest.mark.parametrize("kind", [Refreshed, PublishedDefect])
def test_a_step_goes_along_the_direction_of_its_points(kind, law):
    """(u . g) u of a linear f, to rounding, at refreshes too; the published defect is seen at refreshes alone."""
    estimator = kind(of(law).line, 3)
    same = [torch.allclose(found, (u @ SLOPE) * u, atol=1e-9) for u, found, _ in steps(estimator, 7)]
    assert same == [kind is Refreshed or bool(step % 3) for step in range(7)]


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_rank_changes_neither_the_step_nor_the_length_of_a_direction(rank):
    """Under the published scale the mean in matrices is rank times the gradient."""
    scaled, published = (
        estimate(of(LowRank(rank, scaled)), linear, ZERO, key=1, samples=40_000, layout=SHAPES)
        for scaled in (True, False)
    )
    assert mean_z(scaled, SLOPE) < 5
    hidden = torch.cat((rank * SLOPE[:12], SLOPE[12:]))
    assert mean_z(published, hidden) < 5
    assert rank == 1 or mean_z(published, SLOPE) > 5  # planted
    for law, rows in ((LowRank(rank), scaled), (LowRank(rank, scaled=False), published)):
        of_matrix, of_vector = law.fourth_moments(SHAPES.values())
        wanted = float(of_matrix * SLOPE[:12].square().sum() + of_vector * SLOPE[12:].square().sum())
        assert second_z(rows, wanted) < 5 < second_z(rows, 1.2 * wanted)
    assert LowRank(rank).second_moment == 1.0 and LowRank(rank, scaled=False).second_moment is None


@pytest.mark.parametrize("rank", [1, 2, 24])
def test_the_moments_of_a_subspace_over_refreshes(rank):
    law = Subspace(rank)
    rows = estimate(of(law), linear, ZERO, key=1, samples=40_000, layout=SHAPES)
    assert mean_z(rows, SLOPE) < 5 < mean_z(rows, 1.1 * SLOPE)
    of_matrix, of_vector = law.fourth_moments(SHAPES.values())
    assert (of_matrix, of_vector) == pytest.approx((17 + 2 * 12 / min(rank, 3) ** 2, 19))
    wanted = float(of_matrix * SLOPE[:12].square().sum() + of_vector * SLOPE[12:].square().sum())
    assert second_z(rows, wanted) < 5 < second_z(rows, 1.2 * wanted)


@pytest.mark.parametrize("rank", [1, 2, 24])
def test_between_refreshes_a_subspace_sees_the_gradient_in_it_alone(rank):
    """E[u u^T | U, V] is 12 / r^2 times the projection M -> U U^T M V V^T: 24 is more than a side of 4 x 3 has."""
    r, law = min(rank, 3), Subspace(rank).refreshed(7)
    draws = [law.direction(key, 0, LAYOUT, ()) for key in range(4000)]
    weight, bias = LAYOUT.blocks
    us = torch.stack([draw(weight) for draw in draws])
    left, right = draws[0].factors(weight.segment)
    frames = [torch.linalg.qr(side)[0] for side in (left, right.mT)]
    projection = torch.kron(*(q @ q.mT for q in frames))
    assert torch.allclose(us @ projection, us, atol=1e-9)
    assert torch.allclose(right @ right.mT, torch.eye(r, dtype=F64), atol=1e-12)
    products = us.unsqueeze(-1) * us.unsqueeze(-2)
    assert mean_z(products.flatten(1), (12 / r**2 * projection).flatten()) < 5
    assert mean_z(products.flatten(1), (14 / r**2 * projection).flatten()) > 5  # planted
    plain = Gaussian().direction(3, 0, LAYOUT, ())
    assert torch.equal(draws[3](bias), plain(bias))


def test_frames_are_haar_with_the_signs_of_the_diagonal_of_r_positive():
    segment = LAYOUT.segments[0]
    q = subspace._orthonormal(5, (20_000, 3, 2), segment)
    assert torch.allclose(q.mT @ q, torch.eye(2, dtype=F64).expand(20_000, 2, 2), atol=1e-12)
    first = q[:, :, 0]  # uniform on the sphere: an unsigned QR of Householder has a first entry of one sign
    assert mean_z(first, torch.zeros(3, dtype=F64)) < 5
    assert mean_z(first.square(), torch.full((3,), 1 / 3, dtype=F64)) < 5


def test_frames_are_made_once_a_refresh(monkeypatch):
    made, make = [], subspace._orthonormal
    monkeypatch.setattr(subspace, "_orthonormal", lambda *each: (made.append(each), make(*each))[1])
    memo.cache_clear()
    space, estimator = FlatSpace(ZERO.clone(), LAYOUT), of(Subspace(2), 4)
    state = estimator.init()
    for key in range(8):
        told = query(space, estimator, linear, key, state)
        space.step_(told.gradient, -0.1)
        state = told.state
    assert len(made) == 2 * 2  # two refreshes, one matrix of two sides


def test_directions_of_a_step_share_the_part_that_is_held():
    estimator = of(LowRank(1), 3, n=4)
    plan = estimator.ask(5, estimator.init())
    us = [plan.law.direction(5, i, LAYOUT, ())(LAYOUT.blocks[0]) for i in range(4)]
    assert column_spaces(us) == 1 and not torch.allclose(us[0], us[1])
    alone = [LowRank(1).direction(5, i, LAYOUT, ())(LAYOUT.blocks[0]) for i in range(4)]
    assert column_spaces(alone) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: of(Gaussian()), r"every part of a direction of Gaussian\(\) is drawn anew .* give a law of which"),
        (lambda: of(LowRank(), 0), "every is 0: give the number of steps"),
        (lambda: Refreshed(methods.make("kerzoo-code"), 3), "line is .*: give a LineEstimator"),
        (lambda: Subspace(0), "rank is 0: give the rank of the subspace"),
        (lambda: LowRank(2, scaled=1), "scaled is 1: give True or False"),
        (lambda: query(FlatSpace(ZERO), methods.make("subzero"), linear, 1, methods.make("subzero").init()),
         "the law Subspace draws by the shapes of tensors"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("method", ["lozo", "lozo-m", "zo-muon", "zo-mopi", "hizoo"])
def test_theory_is_asked_about_the_first_step(method):
    f = problems.make("quadratic", 4)
    with pytest.raises(TypeError, match=r"has another law at each step: ask about its \.line, the first step"):
        theory.mse(methods.make(method), f, problems.start(f))


def test_a_held_part_is_no_part_of_an_identity():
    assert repr(LowRank(2).refreshed(3)) == repr(LowRank(2)) == "LowRank(rank=2)" and LowRank(2).refreshed(
        3
    ) != LowRank(2)
    assert repr(LowRank(2, scaled=False)) == "LowRank(rank=2, scaled=False)"
    assert repr(Subspace().refreshed(3)) == "Subspace(rank=24)"
