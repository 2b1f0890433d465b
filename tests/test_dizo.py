"""Scaling the distance of every tensor from the start of a run: DiZO, against its formula."""

import math
from functools import partial

import pytest
import torch
from engines import ENGINES, Net, loss_of, space_of, threads

from synthetic import problems
from zobench import (
    SGD,
    Combination,
    FlatSpace,
    LineEstimator,
    Radial,
    Term,
    derive,
    estimate,
    methods,
    query,
    theory,
)
from zobench.estimators import DiZO
from zobench.layout import Layout
from zobench.optim import ZerothOrder

pytestmark = pytest.mark.usefixtures("one_thread")

F64 = torch.float64
LR, STEPS = 0.01, 6
MADE = methods.make("dizo", epsilon=0.05, n=2, every=3, reach=0.2, rate=0.1, bound=0.05, lr=LR)
LAYOUT = Layout.of({"w": (4, 3), "b": (5,)})
SLOPE = torch.linspace(-1, 2, 17, dtype=F64)


def loss_at(x):
    """The loss of the module with these parameters."""
    space = space_of("plain", Net())
    with torch.no_grad():
        for s, p in zip(space.layout.segments, space.stored.parameters.values(), strict=True):
            start = space.layout.blocks_of[s.name][0].offset
            p.copy_(x[start : start + s.size].view(p.shape))
        return float(loss_of(space.module)())


def by_hand(*, start=None, rate=0.1, bound=0.05, mine=True, far=1.0):
    """x after six steps, the third and the sixth of which scale; what is named is changed in it."""
    space = space_of("plain", Net())
    x, layout = space.vector(), space.layout
    begun = x.clone() if start is None else start
    for step in range(STEPS):
        key, moved = derive("dizo", step), torch.zeros_like(x)
        for i in range(2):
            if step % 3 < 2:
                u = FlatSpace(x, layout).dense(Combination((Term(MADE.line.law, key, torch.ones(1, dtype=F64), (i,)),)))
                slope = (loss_at(x + 0.05 * u) - loss_at(x - 0.05 * u)) / 0.1
                moved -= LR * slope * u / 2
                continue
            signs = {s.name: float(Radial().signs(key, i, s, ())) for s in layout.segments}
            z = torch.cat([torch.full((s.size,), signs[s.name], dtype=F64) for s in layout.segments])
            z = z if mine else torch.ones_like(z)
            slope = (loss_at(x + 0.2 * z * (x - begun)) - loss_at(x - 0.2 * z * (x - begun))) / 0.4
            moved -= far * max(-bound, min(bound, rate * slope)) * z * (x - begun) / 2
        x = x + moved
    return x


@pytest.fixture(scope="module")
def formula():
    return by_hand()


def taken(space, f, estimator=MADE, steps=STEPS):
    rule = SGD(LR)
    state, memory = estimator.init(), 0
    for step in range(steps):
        told = query(space, estimator, f, derive("dizo", step), state)
        state, memory = told.state, rule.apply_(space, told.gradient, memory)
    space.settle_()
    return space


@pytest.mark.parametrize("engine", ENGINES)
def test_steps_are_the_formula(engine, formula):
    space = space_of(engine, Net())
    with threads(2 if engine.startswith("paired") else 1):
        taken(space, loss_of(space.module))
    assert torch.allclose(space.vector(), formula, rtol=1e-9, atol=1e-10)
    (start,) = space.snapshots.values()
    assert [name for name in space.snapshots] == ["start"] and sum(t.numel() for t in start) == space.layout.dim


@pytest.mark.parametrize(
    "change",
    [{"rate": 0.09}, {"bound": 0.04}, {"mine": False}, {"far": 0.0}, {"far": 1.5}],
    ids=str,
)
def test_another_form_is_seen(change, formula):
    assert not torch.allclose(by_hand(**change), formula, rtol=1e-9, atol=1e-10)


class Aliased(FlatSpace):
    """The defect of a snapshot that is the live weights, as a shallow copy of them is."""

    def _copied(self):
        return [self.x]


@pytest.mark.parametrize(("kind", "scales"), [(FlatSpace, True), (Aliased, False)])
def test_the_start_is_no_alias_of_the_weights(kind, scales):
    def f(x):
        return (x - 1).square().sum(-1)

    space = taken(kind(torch.zeros(17, dtype=F64), LAYOUT), f, steps=2)
    before = space.x.clone()
    told = query(space, MADE, f, 9, 2)
    SGD(LR).apply_(space, told.gradient, 0)
    away = (space.x / before - 1)[[0, 15]]
    assert torch.allclose(space.x[:12], before[:12] * (1 + away[0]), atol=1e-12) or not scales
    assert bool((space.x != before).any()) is scales
    assert float(away.abs().max()) <= 0.05 + 1e-12


def test_the_mean_in_a_tensor_is_its_derivative_along_the_distance():
    """E[c z_m] = (x_m - y_m) . grad_m f on a linear f, so that the estimate has the mean of a problem in two variables;
    its variance is sum_l a_l^2 over the other tensors, no matter how many weights they have.
    """
    law = Radial().recall(LAYOUT, lambda b: SLOPE[b.offset : b.offset + b.size], {"start": [0.3 * SLOPE]})
    along = torch.stack([0.7 * SLOPE[:12] @ SLOPE[:12], 0.7 * SLOPE[12:] @ SLOPE[12:]])
    ways = torch.stack([law.signs(5, i, s, (4000,)) for i, s in enumerate(LAYOUT.segments)], -1)
    found = []
    for key in range(2000):
        draw = law.direction(key, 0, LAYOUT, ())
        u = torch.cat([draw(b) for b in LAYOUT.blocks])
        z = torch.stack([law.signs(key, 0, s, ()) for s in LAYOUT.segments])
        assert torch.allclose(u, 0.7 * SLOPE * torch.cat([z[:1].expand(12), z[1:].expand(5)]), atol=1e-12)
        found.append((u @ SLOPE) * z)
    rows = torch.stack(found)
    z = (rows.mean(0) - along) / (rows.std(0) / math.sqrt(len(rows)))
    assert (
        float(z.abs().max()) < 5 < float(((rows.mean(0) - 1.2 * along) / (rows.std(0) / len(rows) ** 0.5)).abs().max())
    )
    assert rows.var(0).tolist() == pytest.approx([float(along[1] ** 2), float(along[0] ** 2)], rel=0.05)
    assert set(ways.unique().tolist()) == {-1.0, 1.0} and law.held == 32 and law.second_moment is None


def test_one_tensor_and_a_batch_of_points_have_their_own_ways():
    one = Layout.of({"w": (4,)})
    x, y = torch.arange(4, dtype=F64), torch.ones(4, dtype=F64)
    law = Radial().recall(one, lambda b: x[b.start : b.stop], {"start": [y.view(2, 2)]})
    assert torch.equal(law.direction(3, 0, one, ())(one.blocks[0]).abs(), (x - y).abs())
    matrix = Layout.of({"w": (1, 4)})
    law = Radial().recall(matrix, lambda b: x[b.start : b.stop], {"start": [y.view(1, 4)]})
    assert torch.equal(law.direction(3, 0, matrix, ())(matrix.blocks[0]).abs(), (x - y).abs())
    batched = Radial().recall(LAYOUT, lambda b: SLOPE.expand(3, -1)[:, b.offset : b.offset + b.size],
                              {"start": [torch.zeros(3, 17, dtype=F64)]})  # fmt: skip
    assert batched.direction(3, 0, LAYOUT, (3,))(LAYOUT.blocks[1]).shape == (3, 5)


def test_what_cannot_be_is_named():
    line = MADE.line
    for make, message in (
        (lambda: DiZO(3), "line is 3: give the LineEstimator"),
        (lambda: DiZO(line, every=1), "every is 1: give the number of steps"),
        (lambda: DiZO(line, reach=0.0), "reach is 0.0: give the relative change"),
        (lambda: DiZO(line, bound=-1.0), "bound is -1"),
        (lambda: DiZO(line, lr=0.0), "lr is 0.0: give the positive learning rate"),
        (lambda: Radial().direction(1, 0, LAYOUT, ()), "reads the weights and a snapshot"),
        (lambda: Radial().bind(LAYOUT, lambda b: SLOPE), "needs the snapshot 'start' of the space, which has \\[\\]"),
        (lambda: MADE.ask(3, 1, (2,)), "follows one sequence of points: ask without a batch"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    space = space_of("in-forward", Net())
    taken(space, loss_of(space.module), steps=2)
    space.restrict({"embedding.weight": [0, 1, 3, 5, 9, 22, 31, 35]})
    with pytest.raises(ValueError, match=r"of 'embedding.weight', but 64 are trained now: .*--rows all"):
        query(space, MADE, loss_of(space.module), 3, 2)


def test_an_optimizer_takes_the_steps_and_keeps_the_start():
    ours, theirs = torch.nn.Linear(3, 2).double(), torch.nn.Linear(3, 2).double()
    theirs.load_state_dict(ours.state_dict())
    inputs = torch.linspace(-1, 1, 6, dtype=F64).view(2, 3)
    first, other = (ZerothOrder(m.named_parameters(), MADE, lr=LR) for m in (ours, theirs))
    loss = lambda m: m(inputs).square().mean()  # noqa: E731
    for _ in range(7):
        first.step(partial(loss, ours))
    for step in range(7):
        if step == 2:
            other2 = ZerothOrder(theirs.named_parameters(), MADE, lr=LR)
            other2.load_state_dict(other.state_dict())
            other = other2
        other.step(partial(loss, theirs))
    assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


def test_theory_and_samples_know_the_first_step():
    rows = estimate(MADE, lambda x: x @ SLOPE, torch.zeros(17, dtype=F64), key=3, samples=200, layout=LAYOUT)
    assert rows.shape == (200, 17) and MADE.evaluations == 4 and MADE.perturbed_by == 0.05
    assert isinstance(MADE.line, LineEstimator)
    f = problems.make("quadratic", 17)
    with pytest.raises(TypeError, match=r"DiZO makes its own: .*; its \.line is covered, LineEstimator\("):
        theory.mse(MADE, f, problems.start(f))
    assert theory.mse(MADE.line, f, problems.start(f)) > 0
