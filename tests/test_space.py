"""Spaces: what moves the parameters moves them as it says, in as few sweeps as it says, and puts them back."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from zobench import (
    SGD,
    CentralStencil,
    Combination,
    FlatSpace,
    ForwardStencil,
    InForwardSpace,
    LineEstimator,
    ModuleSpace,
    Term,
    derive,
    methods,
    query,
)
from zobench.groups import decays
from zobench.law import LAWS, Coordinate
from zobench.layout import BLOCK_SIZE
from zobench.space.closure import evaluate, require_reproducible
from zobench.space.space import require_resolved

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = ("mezo", "forward", "richardson", "kerzoo")
GAUSSIAN = LAWS["gaussian"]


class Bowl(nn.Module):
    """Three tensors and a frozen one; loss = 1/2 y A y + a cubic ridge of all their entries, y = their deviation."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        draw = partial(torch.randn, generator=generator, dtype=torch.float64)
        self.first = nn.Parameter(draw(3, 4).to(dtype))
        self.frozen = nn.Parameter(draw(2).to(dtype), requires_grad=False)
        self.second = nn.Parameter(draw(5).to(dtype))
        self.third = nn.Parameter(draw(1, 3).to(dtype))
        self.register_buffer("buffer", draw(4).to(dtype))
        self.curvature = torch.linspace(0.1, 1.0, 20, dtype=torch.float64)

    def loss(self) -> Tensor:
        return self.of(torch.cat([p.view(-1) for p in (self.first, self.second, self.third)]))

    def of(self, x: Tensor) -> Tensor:
        return 0.5 * (x.square() @ self.curvature.to(x)) + x.sum(-1) ** 3 / 600


def twins(dtype: torch.dtype = torch.float64) -> tuple[Bowl, ModuleSpace, FlatSpace]:
    module = Bowl(dtype).eval()
    space = ModuleSpace(module)
    return module, space, FlatSpace(space.vector(), layout=space.layout)


def line_sum(law, key: int, *values: float) -> Combination:
    return Combination((Term(law, key, torch.tensor(values, dtype=torch.float64)),))


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


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
def test_a_step_from_a_displaced_point_is_a_step_from_the_parameters(law, scale, shrink, other):
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
def test_an_update_onto_the_displaced_point_still_shrinks_from_the_parameters(law):
    """x - e u is where the plan ends: a step of exactly -e u undoes nothing there, yet the decay acts on x alone."""
    module, space, _ = twins()
    epsilon = 0.25
    decaying = decaying_of(space)
    combination = line_sum(LAWS[law], 9, epsilon * LAWS[law].unit(space.layout.dim) ** 2)
    wanted = (1 - 0.5 * decaying) * space.vector() - space.dense(combination)
    space.losses(module.loss, LineEstimator(LAWS[law], CentralStencil(), epsilon).ask(9, ()))
    space.step_(combination, -1.0, shrink=0.5)
    assert torch.allclose(space.vector(), wanted, rtol=1e-12, atol=1e-12)


def test_epsilon_displaces_one_coordinate_by_epsilon():
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
    assert space.sweeps == 3 * sweeps  # nothing was owed


def network(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 200), nn.Tanh(), nn.LayerNorm(200), nn.Linear(200, 10)).to(dtype).eval()
    nn.init.normal_(model[0].weight, std=0.02)
    return model


DATA = torch.linspace(-1, 1, 60 * 8).reshape(8, 60)


def losses_of(model: nn.Module) -> Tensor:
    return model(DATA.to(next(model.parameters()).dtype)).square().mean(-1)


@pytest.mark.parametrize("law", ["gaussian", "rademacher", "sphere"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_zero_restores(method, law):
    model = network()
    space = ModuleSpace(model)
    before = space.vector()
    told = query(space, methods.make(method, epsilon=1e-3, law=law), lambda: losses_of(model), 3, ())
    assert relative(space.vector(), before) > 1e-4  # displaced until it is settled
    SGD(0.0).apply_(space, told.gradient, 0)
    assert 0 <= relative(space.vector(), before) < 1e-7


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("stencil", [CentralStencil(), ForwardStencil()])
def test_an_exception_of_the_loss_restores(error, at, stencil):
    model = network()
    space, calls = ModuleSpace(model), []
    before = space.vector()

    def loss() -> Tensor:
        calls.append(1)
        if len(calls) == at:
            raise error("stop")
        return losses_of(model)

    estimator = LineEstimator(GAUSSIAN, stencil, 1e-3, n=2)
    with pytest.raises(error, match="stop"):
        query(space, estimator, loss, 3, ())
    assert len(calls) == at
    assert relative(space.vector(), before) < 1e-7
    told = query(space, estimator, loss, 3, ())  # and it is fit for use
    fresh_model = network()
    fresh = query(ModuleSpace(fresh_model), estimator, lambda: losses_of(fresh_model), 3, ())
    assert torch.allclose(told.gradient.coefficients, fresh.gradient.coefficients, rtol=1e-2, atol=1e-4)


def test_an_interrupted_backward_of_the_loss_leaves_no_graph():
    module, space, _ = twins()
    evaluate(module.loss)
    told = query(space, methods.make("mezo"), module.loss, 1, ())
    assert not told.losses.requires_grad
    assert all(p.grad is None for p in module.parameters())


class Tied(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(11, 6, dtype=torch.float64)
        self.head = nn.Linear(6, 11, bias=False, dtype=torch.float64)
        if how == "same parameter":
            self.head.weight = self.embed.weight
        else:
            self.head.weight = nn.Parameter(self.embed.weight.detach())


@pytest.mark.parametrize("how", ["same parameter", "same memory"])
def test_tied_weights_move_once(how):
    module = Tied(how).eval()
    space = ModuleSpace(module)
    assert [segment.name for segment in space.layout.segments] == ["embed.weight"]
    assert space.layout.dim == 66
    before = module.embed.weight.detach().clone().view(-1)
    combination = line_sum(GAUSSIAN, 5, 2.0)
    space.step_(combination, 0.1)
    assert torch.allclose(module.embed.weight.view(-1), before + 0.1 * space.dense(combination), rtol=1e-13)
    assert torch.equal(module.head.weight, module.embed.weight)


def test_frozen_parameters_and_buffers_are_untouched():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).eval()
    model[0].weight.requires_grad_(False)
    space = ModuleSpace(model)
    untouched = {"0.weight", *(name for name, _ in model.named_buffers())}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for step in range(3):
        told = query(space, methods.make("mezo", epsilon=0.1), lambda: model(torch.ones(3, 4)).square().sum(), step, ())
        SGD(0.1, weight_decay=0.1).apply_(space, told.gradient, step)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]) == (name in untouched), name


def draws(law, key: int, space: ModuleSpace | FlatSpace, backwards: bool = False) -> dict[tuple[str, int], Tensor]:
    draw = law.bind(space.layout, space.stored.support.stored).direction(key, 0, space.layout, ())
    blocks = reversed(space.layout.blocks) if backwards else space.layout.blocks
    blank = {(b.segment.name, b.index): torch.zeros(b.size, dtype=b.segment.dtype) for b in space.layout.blocks}
    return blank | {(b.segment.name, b.index): u for b in blocks if (u := draw(b)) is not None}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("key", [0, 1, 2**62])
def test_directions_depend_on_no_order(law, key):
    space = twins()[1]
    forth, back = draws(LAWS[law], key, space), draws(LAWS[law], key, space, backwards=True)
    assert all(torch.equal(forth[name], back[name]) for name in forth)
    again = torch.cat([*draws(LAWS[law], key, space).values()])
    assert torch.equal(again, space.dense(line_sum(LAWS[law], key, LAWS[law].unit(space.layout.dim))))
    assert not torch.equal(again, torch.cat([*draws(LAWS[law], key + 1, space).values()]))
    if law in ("sphere", "rademacher", "coordinate"):
        assert float(again.square().sum()) == pytest.approx(20, rel=1e-12)


@pytest.mark.parametrize("law", ["gaussian", "rademacher", "sphere"])
def test_another_parameter_changes_nobody_elses_draw(law):
    small, large = nn.Module(), nn.Module()
    for module in (large, small):
        if module is large:
            module.zeroth = nn.Parameter(torch.zeros(7))
        module.weight = nn.Parameter(torch.zeros(3, 5))
    one, two = (draws(LAWS[law], 4, ModuleSpace(m))[("weight", 0)].double() for m in (small, large))
    assert torch.allclose(one / one.norm(), two / two.norm(), rtol=1e-6)
    if law != "sphere":
        assert torch.equal(one, two)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("law", LAWS)
def test_a_parameter_of_several_blocks(law, dtype):
    module = nn.Module()
    module.weight = nn.Parameter(torch.zeros(2 * BLOCK_SIZE + 100, dtype=dtype))
    space, law = ModuleSpace(module), LAWS[law]
    assert [block.size for block in space.layout.blocks] == [BLOCK_SIZE, BLOCK_SIZE, 100]
    combination = line_sum(law, 6, 0.5, -2.0)
    wanted = space.dense(combination)
    assert torch.allclose(FlatSpace(space.vector(), layout=space.layout).dense(combination), wanted, rtol=1e-12)
    space.step_(combination, -1.0)
    assert torch.allclose(space.vector(), -wanted, rtol=1e-5, atol=1e-6)
    u = draws(law, 6, space)
    one, two, three = (u[("weight", i)].double() for i in range(3))
    if isinstance(law, Coordinate):
        assert sum(int(block.count_nonzero()) for block in u.values()) == 1
        return
    if law.reads_weights:  # those that it reads here are the step
        return
    root = math.sqrt(BLOCK_SIZE)
    for block in (one, two):
        assert abs(float(block.mean())) * root < 5
        assert abs(float(block.square().mean()) - 1) * root / math.sqrt(2) < 5
    assert abs(float((one * two).mean())) * root < 5  # streams differ
    assert abs(float((one * one).mean())) * root > 5  # planted: the same stream in both
    assert not torch.equal(three, one[:100]) and not torch.equal(three, two[:100])


def test_parameters_that_overlap_or_have_gaps_are_refused():
    memory = torch.zeros(10)
    module = nn.Module()
    module.first, module.second = nn.Parameter(memory[:6]), nn.Parameter(memory[4:])
    with pytest.raises(ValueError, match="'first' and 'second' overlap"):
        ModuleSpace(module)
    module.second = nn.Parameter(memory[6:])
    assert ModuleSpace(module).layout.dim == 10
    for gaps in (torch.zeros(4, 3)[:, ::2], torch.zeros(3).expand(4, 3)):
        module.second = nn.Parameter(gaps)
        with pytest.raises(ValueError, match=r"'second' has gaps .* \(shape \(4, \d\), strides \(\d, \d\)\)"):
            ModuleSpace(module)
    module.second = nn.Parameter(torch.zeros(3, device="meta"))
    with pytest.raises(ValueError, match="'second' is on the meta device"):
        ModuleSpace(module)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="no trainable parameter"):
        ModuleSpace(module)


class TestClosures:
    def dropout(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(60, 50), nn.Dropout(0.5), nn.Linear(50, 10))

    def test_dropout_left_on_explains_itself(self):
        model = self.dropout().train()
        space = ModuleSpace(model)
        before = space.vector()
        with pytest.raises(ValueError, match=r"dropout left on \(call model\.eval\(\)\)"):
            query(space, methods.make("mezo"), lambda: losses_of(model), 0, ())
        assert torch.equal(space.vector(), before)
        model.eval()
        assert query(space, methods.make("mezo"), lambda: losses_of(model), 0, ()).gradient.finite

    def test_dropout_turned_on_later_is_seen(self):
        model = self.dropout().eval()
        space = ModuleSpace(model)
        SGD(0.0).apply_(space, query(space, methods.make("mezo"), lambda: losses_of(model), 0, ()).gradient, 0)
        model.train()
        with pytest.raises(ValueError, match="dropout left on"):
            query(space, methods.make("mezo"), lambda: losses_of(model), 1, ())

    def test_a_minibatch_drawn_inside_the_closure_is_seen(self):
        model, generator = network(), torch.Generator().manual_seed(0)
        with pytest.raises(ValueError, match="minibatch drawn inside the closure"):
            query(
                ModuleSpace(model.train()),
                methods.make("mezo"),
                lambda: losses_of(model)[torch.randint(8, (2,), generator=generator)],
                0,
                (),
            )

    def test_the_probe_by_itself(self):
        values = iter([1.0, 1.0 + 1e-4, 2.0, 2.0])
        with pytest.raises(ValueError, match=r"1\.0 and then 1\.0001"):
            require_reproducible(lambda: next(values))
        assert require_reproducible(lambda: next(values)) == 2.0

    def test_a_batched_plan_is_refused(self):
        module, space, _ = twins()
        with pytest.raises(ValueError, match="batch"):
            query(space, methods.make("mezo"), module.loss, 0, (), batch=(3,))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_is_refused_and_restores(bad):
    model = network()
    space = ModuleSpace(model)
    before = space.vector()
    told = query(space, methods.make("mezo", n=2), lambda: bad * losses_of(model).mean(), 3, ())
    with pytest.raises(FloatingPointError, match="not finite"):
        SGD(0.0).apply_(space, told.gradient, 0)
    assert relative(space.vector(), before) < 1e-7
    flat = FlatSpace(torch.ones(4, dtype=torch.float64))
    with pytest.raises(FloatingPointError, match="not finite"):
        flat.step_(line_sum(GAUSSIAN, 0, 1.0, bad), 0.1)
    assert torch.equal(flat.x, torch.ones(4, dtype=torch.float64))


def test_a_bfloat16_module_moves_and_too_small_an_epsilon_is_found():
    model = network(torch.bfloat16)
    nn.init.normal_(model[0].weight)
    space = ModuleSpace(model)
    before = space.vector()
    combination = line_sum(GAUSSIAN, 3, 1.0)
    space.step_(combination, 0.1)
    moved = space.vector() - before
    assert float(torch.nn.functional.cosine_similarity(moved, 0.1 * space.dense(combination), dim=0)) > 0.999
    assert model[0].weight.dtype == torch.bfloat16
    assert space.layout.segments[0].dtype == torch.float32  # the draws are not in bfloat16
    with pytest.raises(ValueError, match=r"epsilon 1e-05 is below the resolution of the parameters: it leaves \d+%"):
        require_resolved(space, 1e-5)
    require_resolved(space, 0.1)
    require_resolved(ModuleSpace(network(torch.float64)), 1e-5)
    assert 0.5 < space.unresolved_share(1e-5) < 1.0
    assert space.unresolved_share(0.0) == 1.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_examples_are_averaged_in_float32(dtype):
    losses = 1.0 + torch.arange(4096) % 7 / 64
    low = losses.to(dtype)
    assert evaluate(lambda: low) == pytest.approx(float(low.double().mean()), rel=1e-6)
    assert float(low.mean()) != pytest.approx(float(low.double().mean()), rel=1e-6)  # planted: averaged as they come
    assert evaluate(lambda: losses.double()) == pytest.approx(float(losses.double().mean()), rel=1e-15)
    assert evaluate(lambda: 2.5) == 2.5


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


def test_a_torn_sweep_is_never_silent():
    module, space, _ = twins()

    def interrupt():
        raise KeyboardInterrupt

    class Interrupting(type(LAWS["gaussian"])):
        def direction(self, key, index, layout, batch):
            draw = super().direction(key, index, layout, batch)
            return lambda block: interrupt() if block is layout.blocks[-1] else draw(block)

    plans = [LineEstimator(each, CentralStencil(), 0.1).ask(9, ()) for each in (Interrupting(), LAWS["gaussian"])]
    with pytest.raises(KeyboardInterrupt):
        space.losses(module.loss, plans[0])
    for again in (lambda: space.losses(module.loss, plans[1]), space.settle_):
        with pytest.raises(RuntimeError, match="load them again"):
            again()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
@pytest.mark.parametrize("kind", [ModuleSpace, InForwardSpace])
def test_a_parameter_that_no_real_direction_moves_rightly_is_refused(kind, dtype):
    module = nn.Linear(2, 2)
    module.more = nn.Parameter(torch.zeros(3).to(dtype))
    with pytest.raises(ValueError, match=f"'more' is {dtype}: give real floating-point parameters"):
        kind(module)
    module.more.requires_grad_(False)
    kind(module)
