"""All engines give the same losses and parameters, those of plain torch on a copy of the module."""

import copy
from dataclasses import replace

import pytest
import torch
from engines import ENGINES, IN_FORWARD, Net, bits, loss_of, space_of, steps, swept_by, threads
from hypothesis import given
from hypothesis import strategies as st
from sampled import sampled
from torch import Tensor, nn

from zobench import Combination, InForwardSpace, Term, layout, methods, query
from zobench.law import LAWS
from zobench.space.closure import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

DTYPES = [torch.float64, torch.float32, torch.bfloat16]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Blocks of 200 entries: parameters of one block and of several, which end within rows."""
    monkeypatch.setattr(layout, "BLOCK_SIZE", 200)


def fifty_steps(engine: str, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    module = Net(dtype=dtype)
    space = space_of(engine, module)
    losses = steps(space, loss_of(module), methods.make("mezo", epsilon=0.05), 50)
    return losses, space.vector()


@pytest.fixture(scope="module")
def reference():
    known = {}

    def of(dtype: torch.dtype, count: int = 1) -> tuple[Tensor, Tensor]:
        if (dtype, count) not in known:
            with swept_by("eager"), threads(count):  # products of torch may depend on its threads: MKL's on AMD do
                known[dtype, count] = fifty_steps("in-forward", dtype)
        return known[dtype, count]

    return of


SETTINGS = [(torch.float64, "eager", 1)]  # the native sweep draws no float64
SETTINGS += [(torch.bfloat16, "native", 1), (torch.bfloat16, "eager", 2)]
SETTINGS += [(torch.float32, "native", 1), (torch.float32, "eager", 1), (torch.float32, "native", 2)]


CASES = [(engine, *setting) for engine in IN_FORWARD for setting in SETTINGS]
USUAL = [SETTINGS[2], SETTINGS[3]]  # bfloat16 on two threads, and float32 by the native sweep


@pytest.mark.parametrize(("engine", "dtype", "way", "count"), sampled(CASES, lambda case: case[1:] in USUAL))
def test_fifty_steps_are_the_same_to_the_bit(engine, dtype, way, count, reference):
    with swept_by(way), threads(count):
        ours = fifty_steps(engine, dtype)
    each = 1 if engine.startswith("paired") else count  # of its two threads a paired look gives one to each point
    assert all(torch.equal(a, b) for a, b in zip(ours, reference(dtype, each), strict=True))


@pytest.mark.parametrize(("way", "count"), [("native", 2), ("eager", 1)])
def test_fifty_steps_of_the_plain_engine_differ_by_rounding(way, count, reference):
    """In float64 by 1e-12 or so. In float32 the way to a point and back rounds three times a step: at most 150 halves
    of a unit in the last place of entries up to 4, 3.6e-5. The walk they make is shorter, and far less than the steps.
    """
    start = InForwardSpace(Net()).vector()
    for dtype, tolerance in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
        with swept_by(way), threads(count):
            losses, end = fifty_steps("plain", dtype)
        wanted, there = reference(dtype)
        assert torch.allclose(losses, wanted, rtol=tolerance, atol=0)
        assert float((end - there).abs().max()) < tolerance
        assert float((start - there).abs().max()) > 100 * tolerance  # planted: no step


def perturbed(p: Tensor, u: Tensor, amount: float) -> Tensor:
    return torch.add(p, u, alpha=amount).to(p.dtype)


class Plain:
    """What torch alone makes of steps: a copy of the module for each point, with the dense direction added."""

    def __init__(self, module: nn.Module, like: InForwardSpace) -> None:
        self.module, self.like = copy.deepcopy(module), like

    def at(self, u: dict[str, Tensor] | None, amount: float) -> nn.Module:
        there = copy.deepcopy(self.module)
        with torch.no_grad():
            for name, p in there.named_parameters():
                if u is not None and name in u:
                    p.copy_(perturbed(p, u[name], amount))
        return there

    def direction(self, plan, index: int) -> dict[str, Tensor]:
        """u_i by name, in the dtype that it is drawn in."""
        coefficients = torch.zeros(index + 1, dtype=torch.float64)
        coefficients[index] = plan.law.unit(self.like.layout.dim)
        u = self.like.dense(Combination((Term(plan.law, plan.key, coefficients),)))
        parts = u.split([s.size for s in self.like.layout.segments])
        return {
            s.name: part.to(s.dtype).view(s.shape) for s, part in zip(self.like.layout.segments, parts, strict=True)
        }

    def losses(self, plan) -> Tensor:
        unit = plan.law.unit(self.like.layout.dim)
        rows = []
        for i, offsets in enumerate(plan.offsets.tolist()):
            u = self.direction(plan, i)
            modules = [self.at(u if offset else None, offset * unit) for offset in offsets]
            with torch.no_grad():
                rows.append([float(loss_of(module)()) for module in modules])
        return torch.tensor(rows, dtype=torch.float64)

    def step(self, plan, coefficients: Tensor, lr: float, shrink: float) -> None:
        unit = plan.law.unit(self.like.layout.dim)
        credited = replace(plan, law=plan.law.credit)
        directions = [self.direction(credited, i) for i in range(len(coefficients))]
        with torch.no_grad():
            for name, p in self.module.named_parameters():
                decays = p.ndim >= 2 and not any(word in name for word in ("bias", "norm"))
                for u, c in zip(directions, coefficients.tolist(), strict=True):
                    if name in u and u is directions[0] and decays:
                        p.mul_(1.0 - shrink)
                    if name in u:
                        p.copy_(perturbed(p, u[name], -lr * c / unit))


@given(
    net=st.fixed_dictionaries(
        {
            "tied": st.booleans(),
            "bias": st.booleans(),
            "dtype": st.sampled_from(DTYPES),
            "width": st.sampled_from([3, 4, 7]),
        }
    ),
    law=st.sampled_from([*LAWS]),
    n=st.integers(1, 3),
    method=st.sampled_from(["mezo", "forward", "kerzoo", "richardson"]),
    engine=st.sampled_from([*IN_FORWARD]),
    way=st.sampled_from(["native", "eager"]),
    block=st.sampled_from([10, 100, 1 << 18]),
    shrink=st.sampled_from([0.0, 0.1]),
)
def test_losses_are_those_of_a_copy_with_the_direction_added(net, law, n, method, engine, way, block, shrink):
    with pytest.MonkeyPatch.context() as patch, swept_by(way):
        patch.setattr(layout, "BLOCK_SIZE", block)
        module = Net(**net)
        space = space_of(engine, module)
        plain = Plain(module, InForwardSpace(copy.deepcopy(module)))
        estimator = methods.make(method, epsilon=0.05, law=LAWS[law], n=n)
        for key in (3, 4):  # the second evaluation flushes the step that is pending
            told = query(space, estimator, loss_of(module), key, ())
            plan = estimator.ask(key, ())
            plain.like = InForwardSpace(copy.deepcopy(plain.module))
            assert torch.equal(told.losses, plain.losses(plan))
            space.step_(told.gradient, -0.01, shrink)
            plain.step(plan, told.gradient.terms[0].coefficients, 0.01, shrink)
        space.settle_()
        for (name, p), q in zip(module.named_parameters(), plain.module.parameters(), strict=True):
            assert torch.equal(bits(p), bits(q)), name
        if "coordinate" not in law and law != "blocks":  # of which the loss may read none
            assert not torch.equal(told.losses, plain.losses(estimator.ask(5, ())))  # planted: another key


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_frozen_layers_and_buffers_stay(engine, dtype):
    module = Net(dtype=dtype)
    before = copy.deepcopy(module.state_dict())
    steps(space_of(engine, module), loss_of(module), methods.make("mezo", epsilon=0.05), 3, lr=0.1)
    stays = {"frozen.weight", "frozen.bias", "shift"}
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) == (name in stays), name


@pytest.mark.parametrize("engine", ENGINES)
def test_autocast_around_the_look_is_autocast_in_it(engine):
    """Its cache of cast weights would hide a displacement, and a second thread knows nothing of it."""
    module = Net(dtype=torch.float32)
    f, seen = loss_of(module), []
    for inside in (True, False):

        def look(inside=inside):
            with torch.autocast("cpu", torch.bfloat16, enabled=inside or torch.is_autocast_enabled("cpu")):
                return f()

        with torch.autocast("cpu", torch.bfloat16, enabled=not inside):
            space = space_of(engine, module)
            seen.append(query(space, methods.make("mezo", epsilon=0.05), look, 1, ()).losses)
            space.settle_()
    exact = query(space, methods.make("mezo", epsilon=0.05), f, 1, ()).losses
    assert torch.allclose(seen[0], seen[1], rtol=1e-5, atol=0)
    assert float(seen[1][0, 0] - seen[1][0, 1]) != 0
    assert not torch.equal(exact, seen[1])  # planted: without autocast


@pytest.mark.parametrize("engine", [name for name in ENGINES if "paired" not in name])
def test_recurrent_layers_are_perturbed(engine):
    """They keep a list of what they read, and compare it with their attributes before each forward."""
    torch.manual_seed(0)
    module, x = nn.LSTM(4, 5).double().eval(), torch.linspace(-1, 1, 24).double().reshape(3, 2, 4)
    space = space_of(engine, module)
    told = query(space, methods.make("mezo", epsilon=0.1), lambda: module(x)[0].square().mean(), 1, ())
    space.settle_()
    u = space.dense(Combination((Term(LAWS["gaussian"], 1, torch.ones(1, dtype=torch.float64)),)))
    start, wanted = space.vector(), []
    for amount in (0.1, -0.1):
        nn.utils.vector_to_parameters(start + amount * u, module.parameters())
        wanted.append(evaluate(lambda: module(x)[0].square().mean()))
    assert told.losses.tolist()[0] == pytest.approx(wanted, rel=1e-12)
    with pytest.raises(ValueError, match="paired=False"):
        InForwardSpace(module, paired=True)
