"""Masks at a true density, and masks of the smallest weights under thresholds from before training."""

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from engines import Net
from torch import Tensor

from zobench import (
    CentralStencil,
    Combination,
    FlatSpace,
    InForwardSpace,
    LineEstimator,
    ModuleSpace,
    Rademacher,
    RandomMask,
    Refreshed,
    SmallWeights,
    Sphere,
    Term,
    estimate,
    methods,
    query,
)
from zobench.law import masks
from zobench.law.masks import Masks
from zobench.law.memo import memo
from zobench.layout import Layout, Segment
from zobench.random import native, streams
from zobench.space.stored import Stored

pytestmark = pytest.mark.usefixtures("one_thread")

F64 = torch.float64
SLOPE = torch.linspace(-1, 2, 17, dtype=F64)
ZERO = torch.zeros(17, dtype=F64)
MANY = Layout.of([200_003])


@pytest.mark.skipif(not native.available(), reason=f"the native masks are not in use: {native.status()}")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, F64])
@pytest.mark.parametrize("size", [1, 7, 8, 2047, 2049, masks.PART - 1, 2 * masks.PART + 3])
def test_masks_in_c_are_those_of_torch(dtype, size):
    cut = Layout((Segment("first", 5, F64), Segment("w", size, F64)))
    stored = streams.normals(2, 0, 5 + size, F64).to(dtype)
    kept = [SmallWeights(share=0.3), SmallWeights(share=1.0)]

    def found() -> list[Masks]:
        bound = [law.bind(cut, lambda b: stored[b.offset : b.offset + b.size]).masks or {} for law in kept]
        memo.cache_clear()  # random masks are held
        return [*bound, *(RandomMask(density=share).direction(4, 0, cut, ()).masks for share in (0.3, 1.0))]

    with native.turned_off():
        wanted = found()
    for ours, theirs in zip(found(), wanted, strict=True):
        for name in ("first", "w"):
            assert torch.equal(ours[name], theirs[name])
    assert int(wanted[1]["first"]) == 0b11111


def linear(x: Tensor) -> Tensor:
    return x @ SLOPE


def kept_by(law: RandomMask, key: int = 1, cut: Layout = MANY) -> Tensor:
    draw = law.direction(key, 0, cut, ())
    return torch.cat([draw(block) for block in cut.blocks]) != 0


def density_z(kept: Tensor, density: float) -> float:
    return abs(float(kept.double().mean()) - density) / math.sqrt(density * (1 - density) / len(kept))


@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_the_density_of_a_random_mask_is_the_one_that_is_asked_for(density):
    assert density_z(kept_by(RandomMask(density=density)), density) < 5
    planted = streams.normals(1, 0, 200_003, F64) < density  # the published mask
    assert density_z(planted, NormalDist().cdf(density)) < 5 < density_z(planted, density)
    assert NormalDist().cdf(0.1) == pytest.approx(0.54, abs=0.005) and NormalDist().cdf(0.9) == pytest.approx(
        0.82, abs=0.005
    )


def test_masks_of_blocks_are_those_of_the_whole_and_differ_between_tensors():
    cut = Layout.of({"a": (101,), "b": (101,)})
    kept = kept_by(RandomMask(density=0.5), 3, cut)
    assert not torch.equal(kept[:101], kept[101:])
    words = streams.words(3, 0, 7)
    assert int((words < round(0.5 * 2**32)).sum()) == int((words < 2**31).sum())


@pytest.mark.parametrize("inner", ["gaussian", "rademacher"])
def test_the_moments_of_a_random_mask(inner):
    law = RandomMask(Rademacher(), 0.3) if inner == "rademacher" else RandomMask(density=0.3)
    rows = estimate(LineEstimator(law, CentralStencil(), 0.1), linear, ZERO, key=3, samples=40_000)
    error = rows.std(0) / 200
    assert float(((rows.mean(0) - SLOPE).abs() / error).max()) < 5
    assert float(((0.3 * rows.mean(0) - SLOPE).abs() / error).max()) > 5  # planted: unscaled, as published
    squares, square = rows.square().sum(-1), float(SLOPE @ SLOPE)
    z = lambda c: abs(float(squares.mean() - c * square) / float(squares.std()) * 200)  # noqa: E731
    assert law.fourth_moment(17) == pytest.approx(16 + (3 if inner == "gaussian" else 1) / 0.3)
    assert z(law.fourth_moment(17)) < 5 < z(law.law.fourth_moment(17))


class OneSided(LineEstimator):
    """The published code's step with several directions: the points are masked, and the step is not."""

    def tell(self, plan, losses, state):
        told = super().tell(plan, losses, state)
        (term,) = told.gradient.terms
        object.__setattr__(told, "gradient", Combination((term._replace(law=plan.law.law),)))
        return told


@pytest.mark.parametrize("kind", [LineEstimator, OneSided])
def test_the_step_is_masked_as_its_points_are(kind):
    space, law = FlatSpace(ZERO.clone()), RandomMask(density=0.4)
    seen = []
    for key in range(5):
        told = query(space, kind(law, CentralStencil(), 0.1), linear, key, ())
        probe = space.dense(Combination((Term(law, key, torch.ones(1, dtype=F64)),)))
        seen.append(torch.equal(space.dense(told.gradient) != 0, probe != 0))
    assert seen == [kind is LineEstimator] * 5


def test_a_mask_is_held_between_refreshes_and_drawn_anew_otherwise():
    held = RandomMask().refreshed(9)
    assert torch.equal(kept_by(held, 1), kept_by(held, 2)) and not torch.equal(
        kept_by(held, 1), kept_by(RandomMask(), 1)
    )
    assert not torch.equal(kept_by(RandomMask(), 1), kept_by(RandomMask(), 2))
    estimator = Refreshed(LineEstimator(RandomMask(), CentralStencil(), 0.1), 2)
    space, state, moved = FlatSpace(ZERO.clone()), estimator.init(), []
    for key in range(4):
        told = query(space, estimator, linear, key, state)
        state = told.state
        moved.append(space.dense(told.gradient) != 0)
    assert torch.equal(moved[0], moved[1]) and torch.equal(moved[2], moved[3]) and not torch.equal(moved[0], moved[2])


def grown(factor: float, fixed: bool) -> float:
    """The share of a mask after the weights have grown by a factor."""
    law, cut, kept = SmallWeights(share=0.25, fixed=fixed), Layout.of([1000]), {}
    weights = torch.linspace(-1, 1, 1000, dtype=F64)
    law.recall(cut, lambda block: weights[block.start : block.stop], kept)
    bound = law.recall(cut, lambda block: factor * weights[block.start : block.stop], kept)
    return int(np.unpackbits(bound.masks["0"].numpy()).sum()) / 1000


def test_fixed_thresholds_are_those_of_the_weights_before_training():
    assert grown(1.0, True) == grown(1.0, False) == grown(2.0, False) == 0.25
    assert grown(2.0, True) == pytest.approx(0.125, abs=3e-3) and grown(0.5, True) == pytest.approx(0.5, abs=3e-3)
    assert repr(SmallWeights(fixed=True)) == "SmallWeights(law=Gaussian(), share=0.5, fixed=True)"
    assert repr(SmallWeights()) == "SmallWeights(law=Gaussian(), share=0.5)"


def test_a_space_keeps_the_thresholds_of_sparse_mezo():
    """Of the start, whatever steps and perturbations come after; one number a tensor."""
    space, estimator = ModuleSpace(Net(dtype=F64)), methods.make("sparse-mezo", epsilon=0.05)
    query(space, estimator, lambda: 0.0, 1, ())
    before = {name: tensor.clone() for name, (tensor,) in space.snapshots.items()}
    assert len(before) == len(space.layout.segments) and all(t.numel() == 1 for t in before.values())
    space.step_(Combination((Term(Rademacher(), 5, torch.ones(1, dtype=F64)),)), 1.0)
    query(space, estimator, lambda: 0.0, 2, ())
    assert all(torch.equal(space.snapshots[name][0], value) for name, value in before.items())


@pytest.mark.skipif(not native.available(), reason=f"the native masks are not in use: {native.status()}")
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_masks_made_where_a_step_is_paid_are_those_of_the_weights_after_it(dtype, rounding, monkeypatch):
    """From the second plan on, with two steps pending; of all tensors but one of another memory format."""
    net = Net(dtype=dtype)
    net.wide.weight.data = net.wide.weight.data.T.contiguous().T
    space = InForwardSpace(net, deferred=True, rounding=rounding)
    estimator, ids, made, masks_of = methods.make("sparse-mezo", epsilon=0.05), torch.arange(6), [], Stored.masks
    monkeypatch.setattr(Stored, "masks", lambda *each: made.append(masks_of(*each)) or made[-1])
    for key in range(1, 4):
        combination = query(space, estimator, lambda: float(net(ids).float().square().mean()), key, ()).gradient
        ((law, _),) = space.stored._bound.items()
        found = space.stored._bound[law].masks
        for segment in space.layout.segments:
            weights = space.stored.parameters[segment.name].detach().reshape(-1)  # x: only steps write
            wanted = masks.packed(weights.abs() <= space.snapshots[f"{law[0]!r} {segment.name}"][0])
            assert torch.equal(found[segment.name], wanted)
        space.step_(combination, 0.5, shrink=0.1)
        space.step_(combination, -0.25)
    others = {s.name for s in space.layout.segments} - {"wide.weight"}
    assert [set(each) for each in made] == [set(), others, others]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomMask(Sphere()), r"law is Sphere\(\): give Gaussian\(\) or Rademacher\(\)"),
        (lambda: RandomMask(density=0), "density is 0: give the share of the weights"),
        (lambda: SmallWeights(fixed=1), "fixed is 1: give True or False"),
    ],
)
def test_what_cannot_be_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
