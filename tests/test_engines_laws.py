"""Laws that no engine knows: a low-rank one, and one that reads the unperturbed weights, on every engine."""

import copy

import pytest
import torch
from engines import ENGINES, Net, loss_of, space_of, swept_by
from sampled import diagonal
from torch import Tensor, nn

from zobench import (
    Combination,
    FlatSpace,
    Gaussian,
    LowRank,
    ModuleSpace,
    SmallWeights,
    Term,
    layout,
    methods,
    query,
)
from zobench.space.closure import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

LAWS = {"low-rank": LowRank(), "small-weights": SmallWeights(), "fixed": SmallWeights(fixed=True)}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 50 entries, that are no whole rows of 8 or 32."""
    monkeypatch.setattr(layout, "BLOCK_SIZE", 50)


def one(law, key: int, *values: float) -> Combination:
    return Combination((Term(law, key, torch.tensor(values, dtype=torch.float64)),))


def flat_twin(module: nn.Module):
    """A flat space with the module's layout and parameters, and the loss of one of its points."""
    space, twin = ModuleSpace(module), copy.deepcopy(module)

    def loss(points: Tensor) -> Tensor:
        values = []
        for x in points.view(-1, points.shape[-1]):
            nn.utils.vector_to_parameters(x, [p for p in twin.parameters() if p.requires_grad])
            values.append(evaluate(loss_of(twin)))
        return torch.tensor(values, dtype=torch.float64).view(points.shape[:-1])

    return FlatSpace(space.vector(), space.layout), loss


@pytest.mark.parametrize("way", ["native", "eager"])
@pytest.mark.parametrize("name", ["mezo", "forward", "kerzoo"])
@pytest.mark.parametrize(("engine", "law"), diagonal(ENGINES, LAWS))
def test_every_engine_and_the_flat_space_serve_every_law(engine, law, name, way):
    module = Net()
    flat, loss = flat_twin(module)
    space, estimator = space_of(engine, module), methods.make(name, epsilon=0.05, law=LAWS[law], n=2)
    start = flat.x.clone()
    with swept_by(way):
        for key in range(4):
            told = [query(*each, key, ()) for each in ((space, estimator, loss_of(module)), (flat, estimator, loss))]
            assert torch.allclose(told[0].losses, told[1].losses, rtol=1e-10, atol=0)
            space.step_(told[0].gradient, -1e-2, 0.01)
            flat.step_(told[1].gradient, -1e-2, 0.01)
        space.settle_()
    assert torch.allclose(space.vector(), flat.x, rtol=1e-8, atol=1e-10)
    assert float((flat.x - start).abs().max()) > 1e-3


def test_low_rank_directions_are_of_low_rank_and_have_unit_moments():
    module = Net()
    space = ModuleSpace(module)
    sizes = [s.size for s in space.layout.segments]
    us = torch.stack([space.dense(one(LowRank(), key, 1.0)) for key in range(200)])
    for s, u in zip(space.layout.segments, us[0].split(sizes), strict=True):
        if len(s.shape) == 2:
            assert int(torch.linalg.matrix_rank(u.view(s.shape))) == min(2, *s.shape), s.name
    squares = us.square().mean(1)
    z = float((squares.mean() - 1) / squares.std() * 200**0.5)
    assert abs(z) < 5
    assert abs(float((2 * squares.mean() - 1) / (2 * squares.std()) * 200**0.5)) > 5  # planted: not divided by the rank
    first, second = us[:, 0] * us[:, 1], us[:, 0] * us[:, 700]
    for product in (first, second):
        assert abs(float(product.mean() / product.std() * 200**0.5)) < 5


def small_entries(p: Tensor) -> Tensor:
    sizes = p.detach().abs().flatten()
    return (sizes <= sizes.median()).view(p.shape)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mask_is_that_of_the_unperturbed_weights(engine):
    """Also while an update is pending, and in the step that follows the evaluation."""
    module, twin = Net(tied=False), Net(tied=False)
    space, plain = space_of(engine, module), ModuleSpace(twin)
    large = one(Gaussian(), 8, 0.3)
    before = small_entries(twin.back)
    for each in (space, plain):
        each.step_(large)
    mask = small_entries(twin.back)  # after the step that may be pending in `space`
    assert not torch.equal(mask, before)
    seen = []

    def look() -> float:
        seen.append(module.back.detach().clone())
        return float(len(seen))

    told = query(space, methods.make("mezo", epsilon=0.5, law=SmallWeights()), look, 3, ())
    for point in seen:
        assert torch.equal((point - twin.back).abs() > 1e-9, mask)
    wanted = twin.back + 0.1 * space.dense(told.gradient).split([s.size for s in space.layout.segments])[
        [s.name for s in space.layout.segments].index("back")
    ].view_as(twin.back)
    space.step_(told.gradient, 0.1)
    space.settle_()
    assert torch.allclose(module.back, wanted, rtol=1e-12, atol=1e-12)
    assert torch.equal((module.back - twin.back).abs() > 1e-9, mask)
    assert not torch.equal(small_entries(seen[-1]), mask)  # planted: the mask of the perturbed weights


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_along_several_keys_of_such_a_law(engine):
    module = Net()
    space = space_of(engine, module)
    flat, _ = flat_twin(module)
    combination = one(SmallWeights(), 1, 0.5, 0.2) + one(Gaussian(), 1, 0.1) + one(SmallWeights(), 2, -0.3)
    wanted = space.vector() + space.dense(combination)
    assert torch.allclose(space.dense(combination), flat.dense(combination), rtol=1e-12, atol=1e-12)
    space.step_(combination)
    flat.step_(combination)
    space.settle_()
    assert torch.allclose(space.vector(), wanted, rtol=1e-12, atol=1e-12)
    assert torch.allclose(flat.x, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_mask_is_read_once_a_key(engine):
    reads = []

    class Counting(SmallWeights):
        def bind(self, layout, weights):
            reads.append(1)
            return super().bind(layout, weights)

    module = Net()
    space = space_of(engine, module)
    for key in range(3):
        told = query(space, methods.make("mezo", epsilon=0.1, law=Counting(), n=2), loss_of(module), key, ())
        space.step_(told.gradient, -0.01)
    assert len(reads) == 3


def test_a_mask_is_held_at_one_bit_a_weight():
    space = ModuleSpace(Net())
    law = SmallWeights().bind(space.layout, space.stored.support.stored)
    held = sum(part.nbytes for part in law.masks.values())
    assert space.layout.dim / 8 <= held <= space.layout.dim / 8 + len(space.layout.blocks)
