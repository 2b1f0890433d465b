"""States of ZerothOrder: the parameters and estimators that they are of; parameters that do not move."""

import copy
import io
import math
import sys
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zobench import methods
from zobench.optim import ZerothOrder
from zobench.random import streams

pytestmark = pytest.mark.usefixtures("one_thread")

INPUTS = torch.linspace(-1, 1, 8 * 20).reshape(8, 20)
LABELS = torch.arange(8) % 4


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.Linear(30, 4, bias=False))


def loss_of(model: nn.Module) -> Tensor:
    return functional.cross_entropy(model(INPUTS), LABELS)


def vector(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


def taken(model: nn.Module, optimizer: ZerothOrder, steps: int) -> Tensor:
    for _ in range(steps):
        optimizer.step(lambda: loss_of(model))
    return vector(model)


class Renamed(nn.Module):
    """Two layers, declared in either order."""

    def __init__(self, *order: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = {name: nn.Linear(20, 20) for name in "ab"}
        for name in order:
            self.add_module(name, layers[name])

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))[:, :4]


def by_name(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for _, p in sorted(model.named_parameters())])


class TestStatesOfOtherParameters:
    @pytest.mark.parametrize("law", ["gaussian", "sphere", "coordinate"])
    @pytest.mark.parametrize("groups", [1, 2])
    @pytest.mark.parametrize("knows_shapes", [True, False])  # earlier versions saved none
    def test_another_order_of_the_same_names_goes_on_to_the_bit(self, law, groups, knows_shapes):
        def made(*order: str) -> tuple[nn.Module, ZerothOrder]:
            model = Renamed(*order)
            named = list(model.named_parameters())
            split = [[pair for pair in named if pair[0].endswith(end)] for end in ("weight", "bias")]
            params = named if groups == 1 else [{"params": split[0], "lr": 0.01}, {"params": split[1]}]
            return model, ZerothOrder(params, methods.make("mezo", law=law), lr=0.05)

        model, optimizer = made("a", "b")
        taken(model, optimizer, 2)
        state = copy.deepcopy(optimizer.state_dict())
        if not knows_shapes:
            del state["state"]["zeroth_order"]["parameters"]
        other, resumed = made("b", "a")
        other.load_state_dict(model.state_dict())
        resumed.load_state_dict(state)
        taken(model, optimizer, 2), taken(other, resumed, 2)
        assert torch.equal(by_name(other), by_name(model))
        assert [s.name for s in resumed.space.layout.segments] == [s.name for s in optimizer.space.layout.segments]

    @pytest.mark.parametrize(
        ("saved", "loaded", "match"),
        [
            (
                "named",
                "unnamed",
                r"parameters \['a.weight', .* where the optimizer has \['0', .*named_parameters\(\) or",
            ),
            ("unnamed", "named", r"parameters \['0', .* where the optimizer has \['a.weight'"),
            (
                "named",
                "prefixed",
                r"\['a.weight', 'a.bias', 'b.weight'\] where the optimizer has \['_orig_mod.a.weight'",
            ),
            ("named", "one renamed", r"the parameters \['b.bias'\] where the optimizer has \['c'\]"),
            ("named", "one reshaped", r"'a.weight' of the state is \(20, 20\), the optimizer's is \(400,\)"),
            ("unnamed", "unnamed, reshaped", r"'0' of the state is \(20, 20\), the optimizer's is \(400,\)"),
        ],
    )
    def test_other_names_or_shapes_are_refused(self, saved, loaded, match):
        def made(kind: str) -> ZerothOrder:
            named = list(Renamed("a", "b").named_parameters())
            if kind.endswith("reshaped"):
                named[0] = (named[0][0], nn.Parameter(named[0][1].detach().flatten()))
            kinds = {
                "prefixed": [(f"_orig_mod.{name}", p) for name, p in named],
                "one renamed": [*named[:3], ("c", named[3][1])],
                "unnamed": [p for _, p in named],
            }
            kind = kind.removesuffix(", reshaped")
            return ZerothOrder(kinds.get(kind, named), methods.make("mezo"), lr=0.5)

        optimizer = made(loaded)
        with pytest.raises(ValueError, match=match):
            optimizer.load_state_dict(made(saved).state_dict())
        assert optimizer.state_dict() == made(loaded).state_dict()  # and it is as it was

    @pytest.mark.parametrize("stream", ["SFC64 and torch 1", None])
    def test_another_stream_of_random_numbers_is_refused_or_told(self, stream):
        model = Renamed("a", "b")
        optimizer = ZerothOrder(model.named_parameters(), methods.make("mezo"), lr=0.5)
        state = copy.deepcopy(optimizer.state_dict())
        assert state["state"]["zeroth_order"].pop("stream") == streams.NAME
        if stream:
            state["state"]["zeroth_order"]["stream"] = stream
            with pytest.raises(ValueError, match=r"stream of random numbers 'SFC64 and torch 1'.*begin with a new"):
                optimizer.load_state_dict(state)
            return
        with pytest.warns(RuntimeWarning, match="of an earlier version of zobench, which drew directions from another"):
            optimizer.load_state_dict(state)
        assert optimizer.state_dict()["state"]["zeroth_order"]["stream"] == streams.NAME

    @pytest.mark.parametrize("state", [None, {}, {"weight": torch.ones(2)}, {"state": {}, "param_groups": []}])
    def test_what_is_no_state_of_it_is_told(self, state):
        optimizer = ZerothOrder(Renamed("a", "b").named_parameters(), methods.make("mezo"), lr=0.5)
        with pytest.raises(ValueError, match="the state is not that of a ZerothOrder"):
            optimizer.load_state_dict(state)


class Memory(NamedTuple):
    best: float
    trace: tuple[Tensor, ...]


@dataclass(frozen=True)
class Frozen:
    memory: Memory
    notes: dict[str, list[int]]


@dataclass(frozen=True)
class Remembering(type(methods.make("mezo"))):
    """MeZO with a state of its own, of the kind that is named."""

    kind: str = "frozen"

    def init(self) -> Any:
        class Local(NamedTuple):
            x: int = 0

        memory = Memory(math.inf, (torch.zeros(2),))
        return {"frozen": Frozen(memory, {"steps": []}), "local": Local(), "object": SimpleNamespace()}[self.kind]

    def tell(self, plan, losses, state):
        assert isinstance(state, Frozen) and isinstance(state.memory, Memory) and isinstance(state.notes["steps"], list)
        best = np.float64(min(state.memory.best, losses.min().item()))
        notes = {"steps": [*state.notes["steps"], 1]}
        return replace(super().tell(plan, losses, ()), state=Frozen(Memory(best, (losses.sum(-1),)), notes))


class TestStatesOfEstimators:
    def test_any_frozen_class_of_numbers_and_tensors_is_saved(self):
        model, mezo = network(), methods.make("mezo")
        optimizer = ZerothOrder(model.parameters(), Remembering(mezo.law, mezo.stencil, 1e-3), lr=0.01)
        taken(model, optimizer, 2)
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        other = ZerothOrder(network().parameters(), optimizer.estimator, lr=0.01)
        other.load_state_dict(torch.load(file, weights_only=True))
        assert repr(other.memory) == repr(optimizer.memory) and other.memory.notes == {"steps": [1, 1]}
        assert type(other.memory.memory.best) is float

    @pytest.mark.parametrize(
        ("kind", "match"),
        [
            ("local", r"test_optim_states:.*<locals>\.Local, which .* top level of a module"),
            ("object", r"a state holds namespace\(\) \(SimpleNamespace\)"),
        ],
    )
    def test_a_state_that_no_file_can_hold_is_refused_at_once(self, kind, match):
        mezo = methods.make("mezo")
        with pytest.raises(TypeError, match=match):
            ZerothOrder(network().parameters(), Remembering(mezo.law, mezo.stencil, 1e-3, kind=kind))

    @pytest.mark.parametrize("name", ["antigravity:Fly", "subprocess:Popen", "zobench.auto:Missing", "os:system"])
    def test_a_file_runs_nothing(self, name):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        state = copy.deepcopy(optimizer.state_dict())
        state["state"]["zeroth_order"]["memory"] = {"type": name, "args": "echo"}
        optimizer.load_state_dict(state)
        with pytest.raises(
            ValueError,
            match=f"a saved state has a {name}, which is no frozen dataclass or named tuple of an imported module",
        ):
            optimizer.step(lambda: loss_of(model))
        assert "antigravity" not in sys.modules


class TestFrozenParameters:
    def test_they_may_have_any_dtype_and_layout(self):
        model = network()
        model.codes = nn.Parameter(torch.ones(4, 8, dtype=torch.int8).t()[:, ::2], requires_grad=False)
        model.away = nn.Parameter(torch.ones(2, device="meta"), requires_grad=False)
        for params in (model.parameters(), model.named_parameters()):
            optimizer = ZerothOrder(params, methods.make("mezo"), lr=0.05)
            assert optimizer.step(lambda: loss_of(model[:3])).isfinite()
            optimizer.load_state_dict(optimizer.state_dict())
        assert bool((model.codes == 1).all())

    def test_all_of_them_may_be_frozen_when_the_optimizer_is_made(self):
        model = network().requires_grad_(False)
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        with pytest.raises(ValueError, match="no trainable parameter: set requires_grad=True"):
            optimizer.step(lambda: loss_of(model))
        model.requires_grad_(True)
        before = vector(model)
        assert not torch.equal(taken(model, optimizer, 1), before)

    @pytest.mark.parametrize("groups", [1, 2])
    @pytest.mark.parametrize("lr", [None, "0.1", [0.1], -1.0, float("nan"), torch.tensor([0.1, 0.2])])
    def test_a_rate_that_is_set_later_is_checked_under_its_own_name(self, lr, groups):
        model = network()
        named = list(model.named_parameters())
        parts = [{"params": named[:2]}, {"params": named[2:], "lr": 0.5}] if groups == 2 else named
        optimizer = ZerothOrder(parts, methods.make("mezo"))
        optimizer.param_groups[0]["lr"] = lr
        with pytest.raises(ValueError, match=r"^lr is .*: give 0 or a positive number"):
            optimizer.step(lambda: 1.0)

    def test_numpys_numbers_are_numbers(self):
        model = network()
        numbers = {"lr": np.float32(0.25), "weight_decay": np.float64(0.1), "seed": np.int64(7)}
        optimizer = ZerothOrder(model.named_parameters(), methods.make("mezo"), **numbers)
        optimizer.add_param_group({"params": [("more", nn.Parameter(torch.ones(2)))], "lr": np.int64(1)})
        optimizer.add_param_group({"params": [(np.str_("last"), nn.Parameter(torch.ones(2)))]})
        optimizer.param_groups[1]["lr"] = np.float32(0.5)  # as a schedule computed with NumPy leaves it
        file = io.BytesIO()
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        assert torch.load(file, weights_only=True) == optimizer.state_dict()
