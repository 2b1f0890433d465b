"""Directions in one block of the parameters: uniform ones, and those that a bandit chooses."""

import math

import pytest
import torch
from torch import Tensor

from zobench import (
    Adaptive,
    BlockBandit,
    Blocks,
    CentralStencil,
    Combination,
    FlatSpace,
    LineEstimator,
    PerTensor,
    Rademacher,
    Refreshed,
    Sphere,
    Term,
    estimate,
    query,
)
from zobench.kernels import legendre
from zobench.law.adaptive import Past
from zobench.law.bandit import VALUES
from zobench.law.blocks import blocks_of
from zobench.layout import Layout
from zobench.naming import UnknownNameError

pytestmark = pytest.mark.usefixtures("one_thread")

F64 = torch.float64
SHAPES = {"layers.0.weight": (3, 2), "layers.0.bias": (2,), "layers.1.weight": (4,), "head.weight": (5,)}
LAYOUT = Layout.of(SHAPES)
SIZES = [8, 4, 5]
SLOPE = torch.linspace(-1, 2, 17, dtype=F64)
ZERO = torch.zeros(17, dtype=F64)
OWN = torch.tensor([0] * 8 + [1] * 4 + [2] * 5)
N = 40_000


def linear(x: Tensor) -> Tensor:
    return x @ SLOPE


def mean_z(rows: Tensor, wanted: Tensor) -> float:
    return float(((rows.mean(0) - wanted).abs() / (rows.std(0) / len(rows) ** 0.5 + 1e-12)).max())


def second_z(rows: Tensor, wanted: float) -> float:
    squares = rows.square().sum(-1)
    return abs(float((squares.mean() - wanted) / squares.std()) * math.sqrt(len(squares)))


def test_what_a_layer_is():
    names = ["model.embed.weight", "model.layers.0.fc.weight", "model.layers.0.norm.bias", "model.layers.10.fc.weight"]
    cut = Layout.of(dict.fromkeys([*names, "lm_head.weight", "scale"], 2))
    assert [*blocks_of(cut, "layer").values()] == [0, 1, 1, 2, 3, 4]
    assert [*blocks_of(cut, "tensor").values()] == [0, 1, 2, 3, 4, 5]
    assert [*blocks_of(LAYOUT, "layer").values()] == [0, 0, 1, 2]


@pytest.mark.parametrize("law", [Blocks(), Blocks(Rademacher())], ids=repr)
def test_the_moments_of_uniform_blocks(law):
    rows = estimate(LineEstimator(law, CentralStencil(), 0.1), linear, ZERO, key=1, samples=N, layout=SHAPES)
    assert mean_z(rows, SLOPE) < 5 < mean_z(rows, SLOPE / 3)  # planted: not weighted by 1 / probability
    c = law.fourth_moments(LAYOUT, [1 / 3] * 3)
    assert (
        c["head.weight"] == pytest.approx(3 * law.law.fourth_moment(5)) and c["layers.0.bias"] == c["layers.0.weight"]
    )
    parts = SLOPE.square().split([6, 2, 4, 5])
    wanted = sum(each * float(part.sum()) for each, part in zip(c.values(), parts, strict=True))
    assert second_z(rows, wanted) < 5 < second_z(rows, 1.1 * wanted)


def test_one_reach_for_each_tensor_keeps_the_weight_of_a_block():
    law = PerTensor(legendre(3), Blocks())
    rows = estimate(LineEstimator(law, CentralStencil(), 0.1), linear, ZERO, key=1, samples=N, layout=SHAPES)
    assert mean_z(rows, SLOPE) < 5 < mean_z(rows, SLOPE / 3)  # planted: the direction of the points in place of B v


def test_a_direction_is_in_one_block_and_the_others_are_not_drawn():
    for key in range(20):
        draw, credit = (each.direction(key, 0, LAYOUT, ()) for each in (Blocks(), Blocks().credit))
        hit = [block for block in LAYOUT.blocks if draw(block) is not None]
        assert len({blocks_of(LAYOUT, "layer")[block.segment.name] for block in hit}) == 1
        assert all(torch.allclose(credit(block), 3 * draw(block)) for block in hit)
        float32 = [s for s in LAYOUT.segments if draw.native(s) is not None]
        assert [s.name for s in float32] == [block.segment.name for block in hit]
        assert all(credit.native(s).scale == pytest.approx(3.0) for s in float32)


def test_a_block_is_held_between_refreshes():
    estimator = Refreshed(LineEstimator(Blocks(), CentralStencil(), 0.1, 3), 5)
    space, state, seen = FlatSpace(ZERO.clone(), LAYOUT), estimator.init(), []
    for key in range(30):
        told = query(space, estimator, linear, key, state)
        state = told.state
        seen.append(OWN[space.dense(told.gradient) != 0].unique().tolist())
    assert all(seen[i] == seen[i - i % 5] and len(seen[i]) == 1 for i in range(30))
    assert len({tuple(each) for each in seen}) == 3


def bandit(values: list[float], explore: float = 0.3) -> BlockBandit:
    law = BlockBandit(explore=explore).bind(LAYOUT, None)
    law.buffers[VALUES].copy_(torch.tensor(values, dtype=F64))
    return law


VALUES_SEEN = [4.0, 0.0, 1.0]
P = [0.1 + 0.7 * v / 5 for v in VALUES_SEEN]


def in_batch(law: BlockBandit, count: int = N) -> tuple[Tensor, Tensor, Tensor]:
    """Directions, credits and the numbers of their blocks."""
    both = []
    for each in (law, law.credit):
        draw = each.direction(7, 0, LAYOUT, (count,))
        both.append(torch.cat([draw(block) for block in LAYOUT.blocks], -1))
    return *both, law.drawn(7, 0, 3, (count,))[0]


def test_whatever_a_bandit_has_learned_the_estimate_is_unbiased():
    law = bandit(VALUES_SEEN)
    assert law.probabilities(3).tolist() == pytest.approx(P)
    u, credit, chosen = in_batch(law)
    counts = torch.bincount(chosen, minlength=3).double()
    z = (counts - N * torch.tensor(P, dtype=F64)) / torch.tensor([math.sqrt(N * p * (1 - p)) for p in P], dtype=F64)
    assert float(z.abs().max()) < 5
    rows = credit * (u @ SLOPE)[:, None]
    assert mean_z(rows, SLOPE) < 5
    assert mean_z(3 * u * (u @ SLOPE)[:, None], SLOPE) > 5  # planted: weighted as if blocks were equally likely
    wanted = sum(
        law.law.fourth_moment(size) / p * float(part.square().sum())
        for size, p, part in zip(SIZES, P, SLOPE.split(SIZES), strict=True)
    )
    assert second_z(rows, wanted) < 5 < second_z(rows, 1.2 * wanted)


def together(law: BlockBandit, weigh) -> Tensor:
    """Two blocks drawn with replacement, in one pair of points: c sum_l weigh(m_l, p_l) u_l, l drawn m_l times."""
    draws = torch.stack([law.drawn(11, i, 3, (N,))[0] for i in range(2)], -1)
    times = torch.nn.functional.one_hot(draws, 3).sum(1).double()
    v = torch.randn(N, 17, dtype=F64, generator=torch.Generator().manual_seed(3))
    u = v * (times > 0)[:, OWN]
    weights = weigh(times, torch.tensor(P, dtype=F64))[:, OWN]
    return weights * u * (u @ SLOPE)[:, None]


def test_a_block_drawn_twice_and_perturbed_once_is_weighted_once_or_by_its_draws():
    """Inclusion has probability 1 - (1 - p)^2: m / (2 p) and [m > 0] / that are unbiased; m / that is not."""
    law, inclusion = bandit(VALUES_SEEN), lambda p: 1 - (1 - p) ** 2
    assert mean_z(together(law, lambda m, p: m / (2 * p)), SLOPE) < 5
    assert mean_z(together(law, lambda m, p: (m > 0) / inclusion(p)), SLOPE) < 5
    assert mean_z(together(law, lambda m, p: m / inclusion(p)), SLOPE) > 5  # planted: perturbed once, weighted twice


def test_a_bandit_learns_where_slopes_are_large():
    """The gradient is in the last block alone: it comes to be drawn most, and the others as often as is explored."""
    law = BlockBandit(explore=0.3, rate=0.2)
    estimator = Adaptive(LineEstimator(law, CentralStencil(), 0.1))
    space, state, chosen = FlatSpace(ZERO.clone(), LAYOUT), estimator.init(), []
    for key in range(300):
        told = query(space, estimator, lambda x: x[..., 12:].sum(-1), key, state)
        probe = space.dense(Combination((Term(told.rounds[0].plan.law, key, torch.ones(1, dtype=F64)),)))
        chosen.append(int(OWN[probe != 0][0]))
        state = told.state
    late = chosen[100:]
    assert abs(late.count(2) / 200 - 0.8) < 5 * math.sqrt(0.16 / 200)
    assert late.count(2) / 200 - 1 / 3 > 5 * math.sqrt(2 / 9 / 200)  # planted: uniform


def test_blocks_that_were_not_drawn_count_as_the_largest():
    law = bandit([-1.0, 2.0, 1.0])
    assert law.probabilities(3).tolist() == pytest.approx([0.1 + 0.7 * 0.4, 0.1 + 0.7 * 0.4, 0.1 + 0.7 * 0.2])
    assert bandit([-1.0] * 3).probabilities(3).tolist() == pytest.approx([1 / 3] * 3)
    assert bandit([0.0] * 3).probabilities(3).tolist() == pytest.approx([1 / 3] * 3)


def test_points_and_steps_read_one_set_of_values():
    law, kept = BlockBandit(), {}
    for step in range(3):
        now = law.after(Past(step, 40 + step, (2.0,) if step else ()))
        probe, credit = (each.recall(LAYOUT, None, kept) for each in (now, now.credit))
        assert torch.equal(probe.buffers[VALUES], credit.buffers[VALUES])
    assert int((probe.buffers[VALUES] == 2.0).sum()) >= 1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Blocks(Sphere()), ValueError, r"law is Sphere\(\): give Gaussian\(\) or Rademacher\(\)"),
        (lambda: Blocks(by="layers"), UnknownNameError, "unknown kind of block: 'layers'. Did you mean 'layer'"),
        (lambda: BlockBandit(explore=0), ValueError, "explore is 0: give the share of draws"),
        (lambda: BlockBandit(rate=2), ValueError, "rate is 2: give the weight of the last slope"),
        (lambda: Adaptive(LineEstimator(Blocks(), CentralStencil(), 0.1)), ValueError, "does not learn from steps"),
        (
            lambda: BlockBandit().direction(1, 0, LAYOUT, ()),
            ValueError,
            r"reads buffers of a space: draw from law\.bind",
        ),
    ],
)
def test_what_cannot_be_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
