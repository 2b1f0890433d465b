"""What low-rank and small-weight directions say of their moments, and what they read and hold."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from engines import Net

import zobench
from zobench import (
    CentralStencil,
    FlatSpace,
    Gaussian,
    LineEstimator,
    LowRank,
    ModuleSpace,
    PerTensor,
    Rademacher,
    SmallWeights,
    Sphere,
    estimate,
    kernels,
    layout,
    methods,
    moments,
    query,
    theory,
)
from zobench.law.low_rank import LowRankDirection
from zobench.layout import Layout, Segment
from zobench.random.native import NativeStream

pytestmark = pytest.mark.usefixtures("one_thread")

F64 = torch.float64
SHAPES = {"weight": (4, 3), "bias": (5,)}
SLOPE = torch.linspace(-1, 2, 17, dtype=F64)
POINT = torch.tensor([1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12, 0.1, 0.2, 0.3, 0.4, 0.5], dtype=F64)
KEPT = torch.tensor([1] * 6 + [0] * 6 + [1, 1, 1, 0, 0], dtype=F64)


def linear(x):
    return x @ SLOPE


def second_z(law, wanted: float) -> float:
    """z of E|g|^2 under a linear function."""
    rows = estimate(LineEstimator(law, CentralStencil(), 0.1), linear, POINT, key=2, samples=400_000, layout=SHAPES)
    squares = rows.square().sum(-1)
    return float((squares.mean() - wanted) / squares.std()) * math.sqrt(len(squares))


@pytest.mark.parametrize("rank", [1, 3])
def test_the_second_moment_of_a_low_rank_estimate(rank):
    law = LowRank(rank)
    of_matrix, of_vector = law.fourth_moments(SHAPES.values())
    assert (of_matrix, of_vector) == pytest.approx((17 + 2 + 2 * 8 / rank, 17 + 2))
    wanted = float(of_matrix * SLOPE[:12].square().sum() + of_vector * SLOPE[12:].square().sum())
    assert abs(second_z(law, wanted)) < 5 < abs(second_z(law, float(19 * SLOPE.square().sum())))  # planted: Gaussian


@pytest.mark.parametrize("inner", [Gaussian(), Rademacher()])
def test_the_moments_of_a_masked_estimate(inner):
    law, kept = SmallWeights(inner), int(KEPT.sum())
    found = moments(LineEstimator(law, CentralStencil(), 0.1), linear, POINT, key=1, samples=50_000, layout=SHAPES)
    z = (found.mean - 2 * KEPT * SLOPE) / (found.mean_error + 1e-12)
    assert float(z.abs().max()) < 5
    assert float((z - (SLOPE - 2 * KEPT * SLOPE) / (found.mean_error + 1e-12)).abs().max()) > 5  # planted: unmasked
    along = float((KEPT * SLOPE).square().sum())
    assert abs(second_z(law, 4 * inner.fourth_moment(kept) * along)) < 5
    assert abs(second_z(law, 4 * inner.fourth_moment(17) * along)) > 5  # planted: c of all weights


@pytest.mark.parametrize("law", [LowRank(), SmallWeights(), PerTensor(kernels.legendre(3), SmallWeights())])
def test_they_are_sampled_with_shapes_and_refused_by_theory(law):
    estimator = LineEstimator(law, CentralStencil(), 0.1)
    with pytest.raises(ValueError, match=r"draws by tensor, but x is one vector: .* layout="):
        estimate(estimator, linear, POINT)
    from synthetic import problems

    f = problems.make("quadratic", 17)
    with pytest.raises(ValueError, match=r"draws by tensor: sample it, zobench.moments\(..., layout=shapes\)"):
        theory.mse(estimator, f, POINT)
    if law.second_moment is None:
        with pytest.raises(TypeError, match="take `moments`"):
            zobench.controlled_moments(estimator, f, f.gradient(POINT), POINT, layout=SHAPES)
    else:
        found = zobench.controlled_moments(estimator, linear, SLOPE, POINT, samples=50, layout=SHAPES)
        assert float(found.mean.abs().max()) < 1e-10  # the mean under a linear function is the gradient


def test_every_point_of_a_batch_has_its_own_mask():
    x = torch.stack((POINT, POINT.flip(0)))
    space, estimator = FlatSpace(x, Layout.of(SHAPES)), methods.make("mezo", law="small-weights", n=2)
    told = query(space, estimator, linear, 3, (), (2,))
    moved = space.dense(told.gradient) != 0
    assert torch.equal(moved[0], KEPT.bool())
    for row, point in enumerate(x):
        alone = FlatSpace(point, Layout.of(SHAPES))
        query(alone, estimator, linear, 3, ())
        assert torch.equal(
            moved[row],
            alone.dense(
                told.gradient.__class__(
                    tuple(term.__class__(term.law, term.key, term.coefficients[row]) for term in told.gradient.terms)
                )
            )
            != 0,
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_threshold_of_a_large_tensor_is_that_of_a_sample_whatever_the_blocks(dtype, monkeypatch):
    size, masks = 300_000, []
    weights = torch.randn(size, generator=torch.Generator().manual_seed(1)).to(dtype)
    for block in (1 << 18, 70_000, 999):
        monkeypatch.setattr(layout, "BLOCK_SIZE", block)
        cut = Layout((Segment("w", size, torch.float32),))
        law = SmallWeights(share=0.3).bind(cut, lambda block: weights[block.start : block.stop])
        draw = law.direction(1, 0, cut, ())
        masks.append(torch.cat([draw(block) for block in cut.blocks]) != 0)
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])
    assert float(weights.abs()[masks[0]].max()) < float(weights.abs()[~masks[0]].min())
    share = float(masks[0].double().mean())
    assert abs(share - 0.3) < 5 * math.sqrt(0.21 / 65_536) + (0.003 if dtype == torch.bfloat16 else 0)  # ties


def test_shares_of_small_tensors_are_exact():
    cut = Layout.of([30, 10, 1])
    x = torch.cat((torch.arange(30.0), -torch.arange(10.0), torch.ones(1))).double()
    for share, wanted in ((0.1, [3, 1, 1]), (0.3, [9, 3, 1]), (0.5, [15, 5, 1]), (1.0, [30, 10, 1])):
        law = SmallWeights(share=share).bind(cut, lambda block: x[block.offset : block.offset + block.size])
        draw = law.direction(1, 0, cut, ())
        assert [int((draw(block) != 0).sum()) for block in cut.blocks] == wanted


def test_masks_of_several_points_are_no_native_stream():
    cut = Layout.of([30])
    (block,), x = cut.blocks, torch.arange(60.0).view(2, 30)
    for weights, native in ((x, False), (x[0], True)):
        draw = SmallWeights().bind(cut, lambda block, weights=weights: weights).direction(1, 0, cut, ())
        assert isinstance(draw.native(block.segment), NativeStream) is native
        assert draw(block).shape == weights.shape


def test_factors_are_drawn_once_a_matrix(monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_SIZE", 50)
    drawn, draw = [], LowRankDirection._made_together

    def counted(directions, segments):
        drawn.extend(segment.name for segment in segments for _ in directions)
        return draw(directions, segments)

    monkeypatch.setattr(LowRankDirection, "_made_together", staticmethod(counted))
    space = ModuleSpace(Net(dtype=torch.float32))
    query(space, methods.make("mezo", law="low-rank"), lambda: 0.0, 1, ())
    matrices = [s for s in space.layout.segments if len(s.shape) == 2]
    assert max(len(space.layout.blocks_of[s.name]) for s in matrices) > 2
    assert set(Counter(drawn)) == {s.name for s in matrices} and max(Counter(drawn).values()) <= 3  # three sweeps


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowRank(0), "rank is 0: give the rank of a direction"),
        (lambda: SmallWeights(Sphere()), r"law is Sphere\(\): give Gaussian\(\) or Rademacher\(\)"),
        (lambda: SmallWeights(share=0), "share is 0: give the share of the weights"),
        (lambda: SmallWeights(share=1.5), "share is 1.5: give the share of the weights"),
        (lambda: FlatSpace(POINT).losses(linear, methods.make("mezo", law="low-rank").ask(1, ())), "x is one vector: "),
        (lambda: SmallWeights().direction(1, 0, Layout.of([3]), ()), "reads the weights: draw from law.bind"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_quantile_of_a_tensor_of_65536_weights_is_exact():
    size = 1 << 16
    for entries, exact in ((size, True), (2 * size, False)):
        weights = torch.randperm(entries, generator=torch.Generator().manual_seed(1)).double()
        bound = SmallWeights(share=0.25).bind(Layout.of([entries]), lambda b, w=weights: w[b.start : b.stop])
        kept = sum(int(np.unpackbits(mask.numpy()).sum()) for mask in bound.masks.values())
        assert (kept == entries // 4) == exact and abs(kept / entries - 0.25) < 5 * math.sqrt(0.25 * 0.75 / size)
    assert SmallWeights().share == 0.5
