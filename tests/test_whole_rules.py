"""Rules that see parameters as matrices: the contract, and the momentum of LOZO-M against its formula."""

import math
from dataclasses import replace

import pytest
import torch
from engines import ENGINES, Net, space_of, threads
from sampled import diagonal
from whole import F64, GROUPS, LAWS_HELD, REFRESHES, UNSCALED, gradients, space_for, stepped, term, vector

from zobench import (
    SGD,
    Combination,
    FactorMomentum,
    FlatSpace,
    LowRank,
    PowerMuon,
    Subspace,
    derive,
    methods,
    query,
)
from zobench.groups import decays
from zobench.law import LAWS
from zobench.layout import Layout
from zobench.state import plain, split

pytestmark = pytest.mark.usefixtures("one_thread")


def itself(segment, x, g):
    return g.core


@pytest.mark.parametrize(
    ("law", "engine"), diagonal([*LAWS_HELD.values(), *UNSCALED, *LAWS.values()], ["flat", "batched", *ENGINES])
)
def test_a_rule_that_returns_the_gradient_takes_its_step(law, engine):
    """So the core in the frames is the gradient: under every law, held or not, with rates and decay."""
    law = law.refreshed(5) if isinstance(law, LowRank | Subspace) else law
    one, other = space_for(engine), space_for(engine)
    gradient = Combination((term(law.credit, 3, 0.5, -1.5),))
    if not isinstance(one, FlatSpace) or not law.reads_weights:
        with threads(2 if engine.startswith("paired") else 1):
            one.step_(gradient, -0.01, 0.1, GROUPS)
            other.update_whole_(gradient, itself, -0.01, 0.1, GROUPS)
        one.settle_(), other.settle_()
        assert torch.allclose(vector(one), vector(other), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "shape"), [("low rank", (96, 2)), ("subspace", (3, 3)), ("left", (3, 8))])
def test_a_rule_gets_the_core_where_a_part_is_held_and_the_gradient_where_none_is(name, shape):
    law, space, seen = LAWS_HELD[name], space_for("plain"), {}

    def look(segment, x, g):
        seen[segment.name] = (tuple(x.shape), tuple(g.core.shape), g.framed)
        return g.core

    space.update_whole_(Combination((term(law.refreshed(5), 3, 0.5, -1.5),)), look)
    assert seen["embedding.weight"] == ((96, 8), shape, True) and seen["shared.bias"] == ((8,), (8,), False)
    space.update_whole_(Combination((term(law, 3, 0.5, -1.5),)), look)  # each direction has frames of its own
    assert seen["embedding.weight"] == ((96, 8), (96, 8), False)
    space.update_whole_(Combination((term(law, 3, 0.5),)), look)
    assert seen["embedding.weight"] == ((96, 8), shape, True)


@pytest.mark.parametrize("law", LAWS_HELD.values(), ids=repr)
def test_frames_are_orthonormal_or_so_on_average(law):
    segment = next(s for s in space_for("flat").layout.segments if s.name == "embedding.weight")
    drawn = [law.refreshed(k).direction(1, 0, space_for("flat").layout, ()).coordinates(segment) for k in range(60)]
    for frames in ([c.left.mT @ c.left for c in drawn if c.left is not None],
                   [c.right @ c.right.mT for c in drawn if c.right is not None]):  # fmt: skip
        if frames:
            products = torch.stack([f.double() for f in frames])
            error = products.std(0) / len(products) ** 0.5 + 1e-9
            assert float(((products.mean(0) - torch.eye(products.shape[-1], dtype=F64)).abs() / error).max()) < 5


def by_hand(*, beta=0.9, projected=True, transposed=False, always=False, begun=True, decay=0.1):
    """LOZO-M as its paper writes it, dense, from the factors U and V of the law; what is named is changed in it."""
    space, lr, held = space_for("flat"), 0.01, {}
    x, layout = space.x.clone(), space.layout
    for gradient, refresh in zip(gradients(LowRank(2)), REFRESHES, strict=True):
        lines = [(law.direction(key, i, layout, ()), float(c)) for (law, key, i), c in gradient.lines]
        for s in layout.segments:
            before, old, drawn_by = held.get(s.name, (None, None, None))
            blocks, v = layout.blocks_of[s.name], torch.eye(1, dtype=F64)
            now = sum(c * torch.cat([draw(b) for b in blocks]) for draw, c in lines)[:, None]
            if len(s.shape) == 2:
                v, now = lines[0][0].factors(s)[1].mT, sum(c * draw.factors(s)[0] for draw, c in lines)
                turn = old.mT @ v / len(v) if old is not None else None
                if before is not None and projected and (always or drawn_by != refresh):
                    before = before @ (turn.mT if transposed else turn)
            start = now if begun else torch.zeros_like(now)
            n = beta * (start if before is None else before) + (1 - beta) * now
            held[s.name] = (n, v, refresh)
            here = slice(blocks[0].offset, blocks[0].offset + s.size)
            rate = GROUPS.multipliers.get(s.name, 1.0)
            x[here] *= 1 - lr * rate * decay * decays(s.name, len(s.shape))
            x[here] -= lr * rate * (n @ v.mT).flatten()
    return x


@pytest.mark.parametrize("engine", ["flat", "batched", *ENGINES])
def test_lozo_m_is_its_formula(engine):
    rule, space = FactorMomentum(0.01, 0.1, GROUPS), space_for(engine)
    with threads(2 if engine.startswith("paired") else 1):
        stepped(space, rule, gradients(LowRank(2)))
    assert torch.allclose(vector(space), by_hand(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [{"beta": 0.89}, {"projected": False}, {"transposed": True}, {"always": True}, {"begun": False}, {"decay": 0.0}],
    ids=str,
)
def test_another_form_of_lozo_m_is_seen(change):
    assert not torch.allclose(by_hand(**change), by_hand(), rtol=1e-10, atol=1e-12)


def test_lozo_m_holds_factors_and_no_matrix():
    """rank numbers a row of a matrix and one a weight elsewhere; one a weight where no part is held."""
    space, rule = space_for("plain"), FactorMomentum(0.01)
    segments = space.layout.segments
    for law, wanted in (
        (LowRank(2), sum(2 * s.shape[0] if len(s.shape) == 2 else s.size for s in segments)),
        (LAWS["gaussian"], space.layout.dim),
    ):
        gradient = Combination((term(law if law == LAWS["gaussian"] else law.refreshed(3), 5, 0.5),))
        tensors = split(plain(stepped(space, rule, [gradient, gradient])))[1].values()
        assert sum(t.numel() for t in tensors) == wanted <= rule.held * space.layout.dim


@pytest.mark.parametrize("rank", [1, 4])
def test_a_refresh_keeps_rank_over_columns_of_the_square_of_the_momentum(rank):
    """E|N V_old^T V_new / columns|^2 = (rank / columns) |N|^2: a finding about LOZO-M."""
    space, columns = FlatSpace(torch.zeros(24 * 6, dtype=F64), Layout.of({"w": (6, 24)})), 24
    (segment,), n = space.layout.segments, torch.linspace(-1, 2, 6 * rank, dtype=F64).view(6, rank)

    def frames(key):
        return LowRank(rank).refreshed(key).direction(0, 0, space.layout, ()).coordinates(segment)

    kept = [frames(2 * k)._replace(core=n).within(frames(2 * k + 1)).square().sum() for k in range(1500)]
    kept = torch.stack(kept) / n.square().sum()
    z = lambda share: abs(float((kept.mean() - share) / kept.std())) * math.sqrt(len(kept))  # noqa: E731
    assert z(rank / columns) < 5 < z(1.5 * rank / columns)


def test_what_a_rule_on_matrices_cannot_step_is_refused():
    gradient = Combination((term(LowRank(2), 3, 0.5),))
    space = space_of("in-forward", Net())
    space.restrict({"embedding.weight": [1, 3]})
    with pytest.raises(ValueError, match=r"rows of \['embedding.weight'\], and a rule on whole .*--rows all"):
        space.update_whole_(gradient, itself)
    batched = FlatSpace(torch.zeros(3, 17, dtype=F64), Layout.of({"w": (4, 3), "b": 5}))
    with pytest.raises(ValueError, match=r"batches \[\(\), \(3,\)\], but a rule on whole parameters steps from one"):
        batched.update_whole_(gradient, itself)
    with pytest.raises(ValueError, match=r"makes \(8,\) of the gradient of 'back', whose core is \(32, 2\)"):
        space_for("flat").update_whole_(gradient, lambda s, x, g: g.core[0, :1].expand(8))
    with pytest.raises(FloatingPointError):
        space_for("plain").update_whole_(gradient * float("inf"), itself)
    with pytest.raises(ValueError, match="beta is 1"):
        FactorMomentum(0.1, beta=1.0)


@pytest.mark.parametrize("engine", ["plain", "in-forward"])
def test_a_rule_that_fails_leaves_the_parameters_torn(engine):
    """Some are written then: as after any sweep that breaks off."""
    space = space_for(engine)

    def failing(segment, x, g):
        if segment.name == "shared.bias":
            raise KeyError(segment.name)
        return g.core

    with pytest.raises(KeyError):
        space.update_whole_(gradients(LowRank(2))[0], failing)
    with pytest.raises(RuntimeError, match="interrupted"):
        space.settle_()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_random_rounding_of_a_step_on_matrices_is_right_on_average(dtype):
    """Steps of a hundredth of a unit in the last place: lost to the nearest, kept on average at random."""
    moved = {}
    for rounding in ("nearest", "stochastic"):
        module = torch.nn.Linear(200, 100, bias=False).to(dtype)
        torch.nn.init.constant_(module.weight, 1.0)
        space = space_of("in-forward", module, rounding=rounding)
        for step in range(20):
            gradient = Combination((term(LowRank(2).refreshed(1), step, 1.0),))
            space.update_whole_(gradient, lambda s, x, g: torch.ones_like(g.core), scale=4e-5)
        moved[rounding] = float((module.weight.detach().float() - 1.0).abs().mean())
    assert moved["stochastic"] > 1e-5
    assert (moved["nearest"] == 0.0) is (dtype == torch.bfloat16)


def test_lozo_m_descends_where_lozo_does():
    """On a quadratic, from the row of the table; the momentum is what differs."""
    slopes = torch.linspace(0.5, 2, 144, dtype=F64)
    left = {}
    for name in ("lozo", "lozo-m"):
        space, rule = FlatSpace(torch.ones(144, dtype=F64), Layout.of({"w": (12, 12)})), methods.rule(name, 2e-3)
        estimator, memory = methods.make(name, every=10), rule.init(space)
        state = estimator.init()
        for step in range(150):
            told = query(space, estimator, lambda x: 0.5 * (slopes * x * x).sum(-1), derive("lozo-m", step), state)
            state, memory = told.state, rule.apply_(space, told.gradient, memory)
        left[name] = float((slopes * space.x.square()).sum() / slopes.sum())
    assert isinstance(methods.rule("lozo", 1.0), SGD) and isinstance(rule, FactorMomentum)
    assert left["lozo-m"] < 0.7 and left["lozo"] < 0.7 and left["lozo"] != left["lozo-m"]


@pytest.mark.parametrize("rule", [FactorMomentum(0.01), PowerMuon(0.01, k=2)], ids=repr)
def test_a_gradient_of_no_terms_and_one_of_several_laws_are_steps_too(rule):
    """No terms: 0, in the frames that are held. Several laws: no frames, and what is held is multiplied out."""
    space = space_for("flat")
    cores = lambda memory: getattr(memory, "cores", memory)  # noqa: E731
    memory = stepped(space, rule, gradients(LowRank(2))[:2])
    faded = rule.apply_(space, Combination(), memory)
    assert cores(faded).line == cores(memory).line
    for before, now in zip(cores(memory).averages, cores(faded).averages, strict=True):
        assert torch.allclose(now, 0.9 * before, atol=1e-12)
    law = LowRank(2).refreshed(REFRESHES[1])
    mixed = Combination((term(law, 7, 0.3), term(LAWS["gaussian"], 8, 0.4)))
    whole = rule.apply_(space, mixed, faded)
    assert cores(whole).line is None
    for s, before, now in zip(space.layout.segments, cores(faded).averages, cores(whole).averages, strict=True):
        here = space.layout.blocks_of[s.name][0].offset
        g = space.dense(mixed)[here : here + s.size].view(s.shape)
        is_matrix = len(s.shape) == 2
        held = before @ law.direction(7, 0, space.layout, ()).coordinates(s).right if is_matrix else before
        assert torch.allclose(now, 0.9 * held + 0.1 * g, atol=1e-12), s.name
    first = rule.apply_(space_for("flat"), Combination(), rule.init(space))
    assert not any(bool(average.any()) for average in cores(first).averages)


def test_a_schedule_goes_on_over_a_skipped_step():
    rule = replace(FactorMomentum(0.1), lr=lambda step: 0.1 / (step + 1))
    space = space_for("flat")
    memory = rule.apply_(space, gradients(LowRank(2))[0], rule.skip(rule.init(space)))
    assert memory.step == 2 and rule.rate(memory) == pytest.approx(0.1 / 3)
