"""Orthogonalised steps in a subspace, their normalised twin, and partial ones, against dense formulas."""

import math
from dataclasses import replace

import pytest
import torch
from engines import ENGINES, threads
from whole import F64, GROUPS, REFRESHES, gradients, space_for, stepped, vector

from zobench import (
    Combination,
    FlatSpace,
    LowRank,
    Muon,
    NormalisedCore,
    PowerMuon,
    Refreshed,
    Subspace,
    Term,
    derive,
    methods,
    query,
)
from zobench.groups import decays
from zobench.layout import Layout
from zobench.naming import UnknownNameError
from zobench.random import streams
from zobench.rule.muon import newton_schulz, polar
from zobench.rule.power_muon import powered

pytestmark = pytest.mark.usefixtures("one_thread")

LEFT = Subspace(3, right=False)
LR, DECAY = 0.01, 0.1


def frames_and_core(space, gradient, segment):
    """P and S of a matrix: its gradient is P S, and P orthonormal."""
    lines = [(law.direction(key, i, space.layout, ()), float(c)) for (law, key, i), c in gradient.lines]
    return lines[0][0].factors(segment)[0], sum(c * draw.factors(segment)[1] for draw, c in lines)


def by_hand(of_core, law=LEFT, vectors=1e-5, beta=None):
    """x after six steps P of_core(S, name, refreshed, gradient's key) of matrices, all of it dense."""
    space = space_for("flat")
    x, before, momentum = space.x.clone(), None, {}
    for gradient, refresh in zip(gradients(law), REFRESHES, strict=True):
        for s in space.layout.segments:
            blocks = space.layout.blocks_of[s.name]
            here = slice(blocks[0].offset, blocks[0].offset + s.size)
            if len(s.shape) == 2:
                p, core = frames_and_core(space, gradient, s)
                step = p @ of_core(core, s.name, refresh != before, p, gradient.terms[0].key)
            else:
                step = space.dense(gradient)[here]
                if beta is not None:
                    step = momentum[s.name] = torch.lerp(step, momentum.get(s.name, step), beta)
                step = vectors * step
            rate = GROUPS.multipliers.get(s.name, 1.0)
            x[here] *= 1 - LR * rate * DECAY * decays(s.name, len(s.shape))
            x[here] -= LR * rate * step.flatten()
        before = refresh
    return x


def exact(core, *_):
    left, _, right = torch.linalg.svd(core, full_matrices=False)
    return left @ right


def normalised(core, *_):
    return core * math.sqrt(min(core.shape)) / core.norm()


def published(core, *_):
    """The five iterations as Muon's code has them."""
    x = core / (core.norm() + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


FORMS = {
    "muon": (Muon(LR, DECAY, GROUPS), published),
    "exact": (Muon(LR, DECAY, GROUPS, polar="exact"), exact),
    "normalised": (NormalisedCore(LR, DECAY, GROUPS), normalised),
}


@pytest.mark.parametrize("engine", ["flat", "batched", *ENGINES])
@pytest.mark.parametrize("name", FORMS)
def test_a_step_is_its_formula(name, engine):
    (rule, formula), space = FORMS[name], space_for(engine)
    with threads(2 if engine.startswith("paired") else 1):
        memory = stepped(space, rule, gradients(LEFT))
    assert memory == len(REFRESHES) and rule.held == 0.0
    assert torch.allclose(vector(space), by_hand(formula), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(
    "change",
    [
        lambda core, *_: core,  # the estimate itself
        lambda core, *_: core / core.norm(),  # of length 1
        lambda core, *_: published(core) * 1.001,
        lambda core, name, *_: newton_schulz(core) if name != "back" else exact(core),
    ],
)
def test_another_step_is_seen(name, change):
    formula = by_hand(FORMS[name][1])
    assert not torch.allclose(by_hand(change), formula, rtol=1e-10, atol=1e-12)
    assert not torch.allclose(by_hand(FORMS[name][1], vectors=1.0), formula, rtol=1e-10, atol=1e-12)


def redrawn_for_each_sample(gradient):
    """The published defect: at a refresh each sample draws a P of its own, and the step lifts all by the last."""
    (term,) = gradient.terms
    lone = [term._replace(law=term.law.refreshed(100 + i), coefficients=c[None], indices=(i,))
            for i, c in enumerate(term.coefficients)]  # fmt: skip
    return Combination(tuple(lone))


def test_samples_in_subspaces_of_their_own_are_not_lifted_by_the_last():
    """The cores of different frames are never added: the space then hands the rule the sum itself."""
    segment = next(s for s in space_for("flat").layout.segments if s.name == "back")
    for gradient, shape in ((gradients(LEFT)[0], (3, 8)), (redrawn_for_each_sample(gradients(LEFT)[0]), (32, 8))):
        space, seen = space_for("flat"), {}

        def look(s, x, g, seen=seen):
            seen[s.name] = g
            return g.core

        dense = space.dense(gradient)
        space.update_whole_(gradient, look)
        g, here = seen["back"], space.layout.blocks_of["back"][0].offset
        whole = g.core if g.left is None else g.left @ g.core
        assert g.core.shape == shape and torch.allclose(whole.flatten(), dense[here : here + segment.size], atol=1e-12)


@pytest.mark.parametrize("method", ["zo-muon", "zo-muon-normalised", "zo-mopi"])
def test_all_directions_of_a_step_are_in_one_subspace_at_refreshes_too(method):
    estimator = methods.make(method, rank=2, every=3)
    layout = Layout.of({"w": (12, 5)})
    (segment,), state = layout.segments, estimator.init()
    for step in range(5):
        plan = estimator.ask(step, state)
        lines = [plan.law.direction(step, i, layout, ()) for i in range(estimator.n)]
        whole = torch.cat([line(layout.blocks[0]).view(12, 5) for line in lines], 1)
        assert int(torch.linalg.matrix_rank(whole)) == 2
        state = estimator.tell(plan, torch.rand(plan.offsets.shape, dtype=F64), state).state
    anew = [LEFT.direction(9, i, layout, ())(layout.blocks[0]).view(12, 5) for i in range(4)]
    assert int(torch.linalg.matrix_rank(torch.cat(anew, 1))) > 3  # planted: a P for each sample
    assert segment.shape == (12, 5)


def test_vectors_are_perturbed_where_they_are_stepped():
    """A port perturbs 1-D parameters out of place, drops the result, and steps them all the same: their slope is 0."""
    layout = Layout.of({"w": (4, 3), "b": (5,)})
    estimator = methods.make("zo-muon", rank=2, n=64)
    slope = torch.tensor([0.0] * 12 + [1.0, -2.0, 3.0, 0.5, 1.0], dtype=F64)
    for moved, seen in ((1.0, True), (0.0, False)):
        space = FlatSpace(torch.zeros(17, dtype=F64), layout)
        told = query(space, estimator, lambda x, moved=moved: moved * (x @ slope), 3, estimator.init())
        vectors = space.dense(told.gradient)[12:]
        assert bool(vectors.any()) is seen and (not seen or float(vectors @ slope[12:]) > 0)


def mopi(beta, k, *, projected=True, reset=True, powers=1, warm=True, unit=True):
    """ZO-MOPI's core as its code has it, with the momentum that its projection keeps; what is named is changed."""
    averages, bases, old = {}, {}, {}

    def of_core(core, name, refreshed, p, key):
        if name in averages:
            before = averages[name]
            if refreshed and projected:
                before = p.mT @ old[name] @ before
            core = beta * before + (1 - beta) * core
        averages[name], old[name] = core, p
        v = bases.get(name) if warm else None
        if v is None or (refreshed and reset):
            shape = (core.shape[1], min(k, *core.shape))
            v = torch.linalg.qr(streams.normal(derive(key, name, "power"), shape, F64, core.device))[0]
        for _ in range(powers):
            v = torch.linalg.qr(core.mT @ (core @ v))[0]
        bases[name] = v
        u = core @ v
        return (u / u.norm(dim=0) if unit else u) @ v.mT

    return of_core


@pytest.mark.parametrize("engine", ["flat", "batched", *ENGINES])
@pytest.mark.parametrize("beta", [0.3, 0.0])
def test_zo_mopi_is_its_formula(engine, beta):
    rule, space = PowerMuon(LR, DECAY, GROUPS, k=2, beta=beta), space_for(engine)
    with threads(2 if engine.startswith("paired") else 1):
        stepped(space, rule, gradients(LEFT))
    wanted = by_hand(mopi(beta, 2), beta=beta)
    assert torch.allclose(vector(space), wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(
    "change",
    [{"projected": False}, {"reset": False}, {"powers": 2}, {"warm": False}, {"unit": False}, {"k": 3}, {"beta": 0.31}],
    ids=str,
)
def test_another_form_of_zo_mopi_is_seen(change):
    kept = {"beta": 0.3, "k": 2}
    assert not torch.allclose(
        by_hand(mopi(**{**kept, **change}), beta=0.3), by_hand(mopi(**kept), beta=0.3), rtol=1e-9, atol=1e-11
    )


def test_the_power_iteration_tends_to_the_polar_factor_of_the_strongest_directions():
    key = derive("power")
    m = torch.linalg.qr(streams.normal(key, (6, 6), F64, torch.device("cpu")))[0] * torch.logspace(0, -1, 6, dtype=F64)
    m = m @ torch.linalg.qr(streams.normal(key + 1, (20, 6), F64, torch.device("cpu")))[0].mT
    left, _, right = torch.linalg.svd(m, full_matrices=False)
    v = None
    for _ in range(60):
        u, v = powered(m, 3, v, key)
    assert torch.allclose(u @ v.mT, left[:, :3] @ right[:3], atol=1e-6)
    assert not torch.allclose(u @ v.mT, left @ right, atol=1e-2)
    u, v = powered(m, 99, None, key)  # k beyond a side: all of them
    assert v.shape == (20, 6) and float((u @ v.mT * m).sum()) > 0


def test_newton_schulz_has_the_singular_vectors_and_values_near_one():
    m = streams.normal(derive("schulz"), (4, 30), F64, torch.device("cpu"))
    for matrix in (m, m.mT, 1e6 * m):
        found, wanted = newton_schulz(matrix), polar(matrix)
        values = torch.linalg.svdvals(found)
        assert float(values.min()) > 0.6 and float(values.max()) < 1.25
        assert torch.allclose(found @ wanted.mT, (found @ wanted.mT).mT, atol=1e-9)  # symmetric: the same vectors
    low = m[:, :1] @ m[:1]
    assert torch.allclose(polar(low), low / torch.linalg.svdvals(low)[0], atol=1e-9)  # and nothing where values are 0
    assert not bool(newton_schulz(torch.zeros(2, 3)).any()) and not bool(polar(torch.zeros(2, 3)).any())


@pytest.mark.parametrize(("n", "same"), [(1, True), (4, True), (10_000, False)])
def test_at_few_directions_orthogonalising_is_normalising(n, same):
    """A finding: the estimate of n directions is a random matrix, whose singular values differ by sqrt(r / columns);
    those of the gradient, here of rank 1, show where n is far above the rank of the subspace times the columns.
    """
    layout, r = Layout.of({"w": (64, 256)}), 8
    (segment,) = layout.segments
    slope = torch.outer(torch.ones(64, dtype=F64), torch.linspace(-1, 2, 256, dtype=F64))
    law = Subspace(r, right=False).refreshed(3)
    if n < 100:
        draws = [law.direction(5, i, layout, ()).coordinates(segment) for i in range(n)]
        core = sum(float((d.left @ d.core * slope).sum()) * d.core for d in draws)
    else:
        core = law.direction(5, 0, layout, ()).coordinates(segment).left.mT @ slope
    cosine = float((polar(core) * core).sum() / polar(core).norm() / core.norm())
    spread = torch.linalg.svdvals(core)
    if same:
        assert cosine > 0.99
        assert abs(float(spread.max() / spread.mean()) - 1) < 1.3 * math.sqrt(r / 256)
    else:
        assert float(spread[1] / spread[0]) < 1e-9


@pytest.mark.parametrize("method", ["zo-muon", "zo-muon-normalised", "zo-mopi"])
def test_steps_of_equal_length_descend(method):
    layout = Layout.of({"w": (12, 12)})
    target = torch.linspace(-1, 1, 144, dtype=F64)
    space, rule = FlatSpace(torch.zeros(144, dtype=F64), layout), methods.rule(method, 0.1)
    estimator, memory = methods.make(method, rank=4, every=10), rule.init(space)
    state, before = estimator.init(), space.x.clone()
    lengths = []
    for step in range(120):
        told = query(space, estimator, lambda x: (x - target).square().sum(-1), derive("muon", step), state)
        state, memory = told.state, rule.apply_(space, told.gradient, memory)
        lengths.append(float((space.x - before).norm()))
        before = space.x.clone()
    assert float((space.x - target).square().sum() / target.square().sum()) < 0.6
    wanted = 0.1 * math.sqrt(4)
    assert lengths[7] == pytest.approx(wanted, rel=1e-9 if method.endswith("normalised") else 0.3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Muon(0.1, polar="newton"), UnknownNameError, "Did you mean 'newton-schulz'"),
        (lambda: Muon(0.1, vectors=-1.0), ValueError, "vectors is -1.0: give the multiple of lr"),
        (lambda: NormalisedCore(0.1, vectors=-1.0), ValueError, "vectors is -1.0"),
        (lambda: PowerMuon(0.1, k=0), ValueError, "k is 0: give the number of orthogonalised directions"),
        (lambda: PowerMuon(0.1, beta=1.0), ValueError, "beta is 1"),
        (lambda: PowerMuon(0.1, vectors=-1.0), ValueError, "vectors is -1.0"),
        (lambda: Subspace(2, right=1), ValueError, "right is 1: give True or False"),
    ],
)
def test_what_cannot_be_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_what_zo_mopi_holds_is_declared():
    space = space_for("flat")
    rule = PowerMuon(0.1, k=2)
    memory = stepped(space, rule, gradients(LEFT)[:2])
    of_v = sum(2 * s.shape[1] for s in space.layout.segments if len(s.shape) == 2)
    of_m = sum(3 * s.shape[1] if len(s.shape) == 2 else s.size for s in space.layout.segments)
    assert sum(v.numel() for v in memory.bases.values()) == of_v
    assert sum(m.numel() for m in memory.cores.averages) == of_m
    assert rule.held == 2.0 and replace(rule, beta=0.0).held == 1.0
    assert not stepped(space_for("flat"), replace(rule, beta=0.0), gradients(LEFT)[:2]).cores.averages
    assert of_v + of_m < rule.held * space.layout.dim


def test_the_law_of_one_frame():
    """E[u u^T] = I over refreshes, (rows / r) P P^T between them; moments by their formula."""
    layout = Layout.of({"w": (4, 3), "b": (2,)})
    assert repr(LEFT) == "Subspace(rank=3, right=False)" and LEFT.core((4, 9)) == (3, 9) and LEFT.core((2, 9)) == (2, 9)
    law, published = Subspace(2, right=False), Subspace(2, right=False, scaled=False)
    one, other = (each.refreshed(1).direction(1, 0, layout, ())(layout.blocks[0]) for each in (law, published))
    assert torch.allclose(one, other * 2**0.5, atol=1e-12) and published.second_moment is None
    assert published.fourth_moments([(4, 3), (2,)]) == pytest.approx((0.5 * (0.5 * 16 + 2), 4 + 6))
    rows = torch.stack([law.refreshed(k).direction(k, 0, layout, ())(layout.blocks[0]) for k in range(6000)])
    products = (rows.unsqueeze(-1) * rows.unsqueeze(-2)).flatten(1)
    z = (products.mean(0) - torch.eye(12, dtype=F64).flatten()) / (products.std(0) / len(rows) ** 0.5)
    assert float(z.abs().max()) < 5
    of_matrix, of_vector = law.fourth_moments([(4, 3), (2,)])
    squares = rows.square().sum(-1).square() / 12  # E|M|^4 / 12 = c - 2 for 14 entries in all
    assert abs(float((squares.mean() - (of_matrix - 2)) / squares.std())) * len(rows) ** 0.5 < 5
    assert abs(float((squares.mean() - 1.1 * (of_matrix - 2)) / squares.std())) * len(rows) ** 0.5 > 5
    assert of_vector == pytest.approx(16) and isinstance(methods.make("zo-muon"), Refreshed)
    assert law.refreshed(1) != law and LowRank(2).refreshed(1).refresh == 1
    assert isinstance(Term(law, 3, torch.ones(1, dtype=F64)), Term)
