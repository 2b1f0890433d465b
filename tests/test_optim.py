"""ZerothOrder: torch's conventions for an optimizer, and the step of ModuleSpace and SGD."""

import copy
import io
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import lr_scheduler

from zobench import SGD, AutoEpsilon, Groups, InForwardSpace, ModuleSpace, derive, keyed, methods, query
from zobench.law import LAWS
from zobench.optim import ZerothOrder
from zobench.space import ParameterSpace, restoring

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parent.parent
INPUTS = torch.linspace(-1, 1, 8 * 20).reshape(8, 20)
LABELS = torch.arange(8) % 4
ESTIMATORS = [
    *(methods.parse(method.name, epsilon=0.01) for method in methods.table()),
    methods.make("mezo", n=3, law="rademacher"),
    methods.make("kerzoo", n=2, order=5),
    methods.make("orthogonal", n=4),
    AutoEpsilon(every=3, lines=2),
]


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.LayerNorm(30), nn.Linear(30, 4, bias=False)).to(dtype)


def loss_of(model: nn.Module, rows: slice = slice(None)) -> Tensor:
    inputs = INPUTS.to(next(model.parameters()).dtype)
    return functional.cross_entropy(model(inputs)[rows].float(), LABELS[rows])


def vector(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


def stepped(
    model: nn.Module, estimator, steps: int, lr: float = 0.05, decay: float = 0.0, seed: int = 0, space_type=ModuleSpace
) -> Tensor:
    """What ModuleSpace and SGD make of it."""
    space, rule = space_type(model), SGD(lr, decay)
    state, memory = estimator.init(), rule.init(space)
    for key, _ in keyed(range(steps), seed):
        told = query(space, estimator, lambda: loss_of(model), key, state)
        memory, state = rule.apply_(space, told.gradient, memory), told.state
    return vector(model)


def taken(model: nn.Module, optimizer: ZerothOrder, steps: int) -> Tensor:
    for _ in range(steps):
        optimizer.step(lambda: loss_of(model))
    return vector(model)


class TestTheStep:
    @pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
    def test_one_group_steps_as_a_module_space_to_the_bit(self, estimator):
        ours, theirs = network(), network()
        optimizer = ZerothOrder(ours.named_parameters(), estimator, lr=1e-4, seed=7)
        found, wanted = taken(ours, optimizer, 5), stepped(theirs, estimator, 5, 1e-4, seed=7)
        assert torch.equal(found, wanted)
        assert not torch.equal(found, vector(network()))
        assert not torch.equal(found, stepped(network(), estimator, 5, 1e-4, seed=8))  # planted: another seed

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
    @pytest.mark.parametrize("law", ["gaussian", "sphere", "coordinate"])
    def test_in_every_dtype(self, dtype, law):
        estimator = methods.make("mezo", epsilon=0.1, law=law, n=2)
        ours, theirs = network(dtype), network(dtype)
        optimizer = ZerothOrder(ours.named_parameters(), estimator, lr=0.5)
        space_type = InForwardSpace if dtype.itemsize == 2 else ModuleSpace  # which writes the weights by steps alone
        wanted = stepped(theirs, estimator, 3, lr=0.5, space_type=space_type)
        assert torch.equal(taken(ours, optimizer, 3), wanted)
        assert next(ours.parameters()).dtype == dtype
        assert optimizer.space.layout.segments[0].dtype == (dtype if dtype == torch.float64 else torch.float32)

    def test_without_names_positions_key_the_directions(self):
        ours, theirs = network(), network()
        optimizer = ZerothOrder(ours.parameters(), methods.make("mezo"), lr=0.05)
        assert [s.name for s in optimizer.space.layout.segments] == ["0", "1", "2", "3", "4"]
        found = taken(ours, optimizer, 4)
        space = ModuleSpace(nn.ParameterList(theirs.parameters()))
        for key, _ in keyed(range(4), 0):
            SGD(0.05).apply_(space, query(space, methods.make("mezo"), lambda: loss_of(theirs), key, ()).gradient, 0)
        assert torch.equal(found, vector(theirs))

    def test_decay_is_for_the_whole_group(self):
        model = nn.Sequential(nn.Linear(20, 8, bias=False), nn.Linear(8, 4, bias=False))
        twin, estimator = copy.deepcopy(model), methods.make("mezo")
        optimizer = ZerothOrder(model.named_parameters(), estimator, lr=0.05, weight_decay=0.3)
        assert torch.equal(taken(model, optimizer, 3), stepped(twin, estimator, 3, decay=0.3))
        model = network()
        before = vector(model)
        optimizer = ZerothOrder(model.named_parameters(), estimator, lr=0.5, weight_decay=0.5)
        optimizer.step(lambda: 0.0)  # no gradient: decay alone, of biases and norms as well
        assert torch.allclose(vector(model), 0.75 * before, rtol=1e-5, atol=1e-6)

    def test_several_rounds_are_one_step(self):
        model, estimator = network(), methods.make("mezo", epsilon="auto")
        optimizer = ZerothOrder(model.parameters(), estimator, lr=0.05)
        taken(model, optimizer, 1)
        probed = optimizer.evaluations
        taken(model, optimizer, 3)
        assert probed > 2 and optimizer.evaluations == probed + 3 * 2
        assert optimizer.memory.step == 4 and optimizer.memory.choice.epsilon > 0

    def test_the_loss_is_the_mean_of_the_points(self):
        model, seen = network(), []

        def closure() -> Tensor:
            seen.append(loss_of(model))
            return seen[-1]

        optimizer = ZerothOrder(model.parameters(), methods.make("mezo", n=2), lr=0.05)
        assert math.isnan(optimizer.loss)
        loss = optimizer.step(closure)
        assert len(seen) == 2 + 4 and optimizer.evaluations == 4
        assert loss.shape == () and loss.dtype == torch.float64
        assert loss.item() == optimizer.loss.item() == pytest.approx(torch.stack(seen[2:]).double().mean().item())
        optimizer.step(closure)
        assert len(seen) == 10  # the closure is checked once

    def test_losses_of_examples_are_averaged(self):
        ours, theirs = network(torch.float64), network(torch.float64)
        one, two = (ZerothOrder(m.parameters(), methods.make("mezo"), lr=0.05) for m in (ours, theirs))
        one.step(lambda: functional.cross_entropy(ours(INPUTS.double()), LABELS, reduction="none"))
        two.step(lambda: float(functional.cross_entropy(theirs(INPUTS.double()), LABELS)))
        assert torch.allclose(vector(ours), vector(theirs), rtol=1e-9)

    def test_it_descends(self):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo", n=4), lr=0.05)
        before = loss_of(model).item()
        taken(model, optimizer, 100)
        assert loss_of(model).item() < 0.7 * before


class TestGroups:
    @pytest.mark.parametrize("law", LAWS)
    def test_each_group_has_its_pace(self, law):
        model = network(torch.float64)
        estimator = methods.make("mezo", law=law, epsilon=0.1)
        groups = [
            {"params": model[0].parameters(), "lr": 0.5},
            {"params": model[2].parameters(), "weight_decay": 0.4},
            {"params": model[3].parameters()},
        ]
        optimizer = ZerothOrder(groups, estimator, lr=0.25)
        before = vector(model)
        told = query(optimizer.space, estimator, lambda: loss_of(model), derive(0, 0), ())
        optimizer.space.settle_()
        sizes = [sum(p.numel() for p in model[i].parameters()) for i in (0, 2, 3)]
        lr, decay = (
            torch.cat(
                [torch.full((size,), value, dtype=torch.float64) for size, value in zip(sizes, values, strict=True)]
            )
            for values in ((0.5, 0.25, 0.25), (0.0, 0.4, 0.0))
        )
        wanted = (1 - lr * decay) * before - lr * optimizer.space.dense(told.gradient)
        sweeps = optimizer.space.sweeps
        assert torch.allclose(taken(model, optimizer, 1), wanted, rtol=1e-12, atol=1e-12)
        assert optimizer.space.sweeps == sweeps + 3  # the update is fused with the way back
        assert not torch.allclose(vector(model), before - 0.25 * optimizer.space.dense(told.gradient), rtol=1e-9)

    def test_groups_of_equal_pace_are_one_group(self):
        ours, theirs = network(), network()
        groups = [{"params": list(ours[i].named_parameters(str(i)))} for i in (0, 2, 3)]
        found = taken(ours, ZerothOrder(groups, methods.make("mezo"), lr=0.05), 3)
        assert torch.equal(found, stepped(theirs, methods.make("mezo"), 3))

    def test_a_group_added_later_moves_and_shifts_nobody(self):
        model = network()
        optimizer = ZerothOrder(model[0].named_parameters("0"), methods.make("mezo"), lr=0.05)
        before = model[3].weight.detach().clone()
        taken(model, optimizer, 2)
        assert torch.equal(model[3].weight, before)
        optimizer.add_param_group({"params": model[3].named_parameters("3"), "lr": 0.5})
        assert [s.name for s in optimizer.space.layout.segments] == ["0.weight", "0.bias", "3.weight"]
        taken(model, optimizer, 1)
        assert not torch.equal(model[3].weight, before)
        with pytest.raises(ValueError, match="more than one parameter group"):
            optimizer.add_param_group({"params": [("again", model[0].weight)]})

    def test_unfreezing_is_seen_and_keeps_the_names(self):
        model = network()
        model[0].weight.requires_grad_(False)
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        assert [s.name for s in optimizer.space.layout.segments] == ["1", "2", "3", "4"]
        before = model[0].weight.detach().clone()
        taken(model, optimizer, 1)
        assert torch.equal(model[0].weight, before)
        model[0].weight.requires_grad_(True)
        taken(model, optimizer, 1)
        assert not torch.equal(model[0].weight, before)

    def test_a_model_cast_after_construction_is_seen(self):
        model = network()
        optimizer = ZerothOrder(model.named_parameters(), methods.make("mezo", epsilon=0.1), lr=0.5)
        model.to(torch.bfloat16)  # swaps p.data
        twin = network(torch.bfloat16)
        found = taken(model, optimizer, 2)
        estimator = methods.make("mezo", epsilon=0.1)
        assert torch.equal(found, stepped(twin, estimator, 2, lr=0.5, space_type=InForwardSpace))

    def test_tied_parameters_move_once(self):
        embed, head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
        head.weight = nn.Parameter(embed.weight.detach())  # another parameter in the same memory
        optimizer = ZerothOrder([embed.weight, head.weight], methods.make("mezo"), lr=0.05)
        assert [s.name for s in optimizer.space.layout.segments] == ["0"]
        tokens = torch.arange(11)
        before = embed.weight.detach().clone()
        told = query(
            optimizer.space,
            optimizer.estimator,
            lambda: functional.cross_entropy(head(embed(tokens)), tokens),
            derive(0, 0),
            (),
        )
        optimizer.space.step_(told.gradient, -0.05)
        wanted = before.double() - 0.05 * optimizer.space.dense(told.gradient).view(11, 6)
        assert torch.allclose(embed.weight.double(), wanted, atol=1e-6)


class TestResuming:
    @pytest.mark.parametrize("estimator", ESTIMATORS, ids=repr)
    def test_to_the_bit_through_a_file_of_weights_only(self, estimator):
        whole = network()
        wanted = taken(whole, ZerothOrder(whole.parameters(), estimator, lr=1e-4, seed=3), 7)
        first = network()
        optimizer = ZerothOrder(first.parameters(), estimator, lr=1e-4, seed=3)
        taken(first, optimizer, 4)
        file = io.BytesIO()
        torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, file)
        file.seek(0)
        saved = torch.load(file, weights_only=True)
        second = network()
        second.load_state_dict(saved["model"])
        resumed = ZerothOrder(second.parameters(), estimator, lr=9.0)
        resumed.load_state_dict(saved["optimizer"])
        assert torch.equal(taken(second, resumed, 3), wanted)
        assert resumed.state_dict()["state"] == {**optimizer.state_dict()["state"], **resumed.state_dict()["state"]}
        second.load_state_dict(saved["model"])
        assert not torch.equal(taken(second, ZerothOrder(second.parameters(), estimator, lr=1e-4), 3), wanted)

    def test_a_state_dict_does_not_change_with_later_steps(self):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        state = optimizer.state_dict()
        before = copy.deepcopy(state)
        taken(model, optimizer, 2)
        assert state["state"] == before["state"] != optimizer.state_dict()["state"]
        assert [group["lr"] for group in state["param_groups"]] == [0.05]

    @pytest.mark.parametrize("through", ["deepcopy", "pickle"])
    def test_copies_go_on_alike(self, through):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("kerzoo", n=2), lr=0.05)
        taken(model, optimizer, 3)
        both = (model, optimizer)
        other, again = copy.deepcopy(both) if through == "deepcopy" else pickle.loads(pickle.dumps(both))
        assert repr(again) == repr(optimizer)
        found, wanted = taken(other, again, 2), taken(model, optimizer, 2)
        assert torch.equal(found, wanted)

    def test_the_state_of_others_is_refused(self):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        other = ZerothOrder(model.parameters(), methods.make("kerzoo"), lr=0.05)
        with pytest.raises(ValueError, match=r"that of LineEst.*CentralStencil.* has LineEst.*KernelStencil"):
            other.load_state_dict(optimizer.state_dict())
        with pytest.raises(ValueError, match="not that of a ZerothOrder"):
            other.load_state_dict(torch.optim.SGD(model.parameters()).state_dict())
        fewer = ZerothOrder(model[0].parameters(), methods.make("mezo"), lr=0.05)
        with pytest.raises(ValueError, match="doesn't match the size"):
            fewer.load_state_dict(optimizer.state_dict())


class TestConventions:
    @pytest.mark.parametrize(
        "schedule",
        [
            lambda o: lr_scheduler.StepLR(o, 2, 0.5),
            lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
            lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=6, cycle_momentum=False),
            lambda o: lr_scheduler.SequentialLR(
                o, [lr_scheduler.LinearLR(o, 0.1, 1.0, 3), lr_scheduler.ExponentialLR(o, 0.9)], [3]
            ),
        ],
    )
    def test_a_scheduler_sets_the_rate(self, schedule):
        ours, theirs = network(), network()
        optimizer, rates = ZerothOrder(ours.named_parameters(), methods.make("mezo"), lr=0.05), []
        scheduler = schedule(optimizer)
        for _ in range(5):
            rates.append(optimizer.param_groups[0]["lr"])
            taken(ours, optimizer, 1)
            scheduler.step()
        assert len(set(rates)) > 1
        space, rule, memory = ModuleSpace(theirs), SGD(lambda step: rates[step]), 0
        for key, _ in keyed(range(5), 0):
            told = query(space, methods.make("mezo"), lambda: loss_of(theirs), key, ())
            memory = rule.apply_(space, told.gradient, memory)
        assert torch.equal(vector(ours), vector(theirs))

    def test_a_plateau_is_told_the_loss(self):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
        for _ in range(3):
            scheduler.step(optimizer.step(lambda: 1.0))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.0005)

    def test_a_rate_may_be_a_tensor(self):
        ours, theirs = network(), network()
        found = taken(ours, ZerothOrder(ours.named_parameters(), methods.make("mezo"), lr=torch.tensor(0.25)), 2)
        assert torch.equal(found, stepped(theirs, methods.make("mezo"), 2, lr=0.25))

    def test_hooks_run(self):
        model, seen = network(), []
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
        optimizer.register_step_post_hook(lambda *_: seen.append("after"))
        taken(model, optimizer, 1)
        assert seen == ["before", "after"]

    @pytest.mark.parametrize("backward", ["tensor", "scaled"])
    def test_a_closure_of_first_order_loops_steps_alike(self, backward):
        ours, theirs, forwards = network(), network(), []
        optimizer = ZerothOrder(ours.named_parameters(), methods.make("mezo"), lr=0.05)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = loss_of(ours)
            forwards.append(1)
            (loss if backward == "tensor" else torch.amp.GradScaler("cpu").scale(loss)).backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        assert torch.equal(vector(ours), stepped(theirs, methods.make("mezo"), 3))
        assert all(p.grad is None for p in ours.parameters())
        assert len(forwards) == 1 + 2 + 3 * 2  # refused once, checked twice
        optimizer.zero_grad(set_to_none=False)

    def test_other_errors_of_a_closure_are_its_own_and_restore_exactly(self):
        model, calls = network(), []
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        before = vector(model)

        def closure() -> Tensor:
            calls.append(1)
            if len(calls) == 4:
                raise RuntimeError("out of memory")
            return loss_of(model)

        with pytest.raises(RuntimeError, match="out of memory"):
            optimizer.step(closure)
        assert torch.equal(vector(model), before)
        optimizer.step(closure)
        fresh = network()
        assert torch.equal(
            vector(model), taken(fresh, ZerothOrder(fresh.parameters(), methods.make("mezo"), lr=0.05), 1)
        )

    def test_gradients_of_others_are_left_alone(self):
        model = network()
        loss_of(model).backward()
        before = [p.grad.clone() for p in model.parameters()]
        taken(model, ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05), 1)
        assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), before, strict=True))

    def test_a_missing_closure_explains_itself(self):
        optimizer = ZerothOrder(network().parameters(), methods.make("mezo"), lr=0.05)
        with pytest.raises(ValueError, match=r"call step\(closure\)"):
            optimizer.step()

    def test_dropout_is_told(self):
        model = nn.Sequential(nn.Linear(20, 50), nn.Dropout(0.5), nn.Linear(50, 4))
        before = vector(model)
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        with pytest.raises(ValueError, match=r"dropout left on \(call model\.eval\(\)\)"):
            optimizer.step(lambda: loss_of(model))
        assert torch.equal(vector(model), before)
        model.eval()
        assert optimizer.step(lambda: loss_of(model)).isfinite()

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"lr": -1.0}, ValueError, "lr is -1.0: give 0 or a positive number"),
            ({"lr": math.nan}, ValueError, "lr is nan: give 0"),
            ({"lr": None}, ValueError, "lr is None: give 0"),
            ({"lr": "0.1"}, ValueError, "lr is '0.1': give 0"),
            ({"weight_decay": -0.1}, ValueError, "weight_decay is -0.1"),
            ({"weight_decay": True}, ValueError, "weight_decay is True"),
            ({"seed": 1.5}, ValueError, "seed is 1.5: give a whole number"),
            ({"seed": "1"}, ValueError, "seed is '1': give a whole number"),
            ({"estimator": "mezo"}, TypeError, "estimator is 'mezo': give one"),
            ({"params": []}, ValueError, "empty parameter list"),
            ({"params": torch.ones(3)}, TypeError, "iterable of Tensors"),
            ({"params": [{"params": {nn.Parameter(torch.ones(3))}}]}, TypeError, "ordered collections"),
            ({"params": [nn.Parameter(torch.ones(3, dtype=torch.complex64))]}, ValueError, "'0' is torch.complex64"),
            (
                {"params": [nn.Parameter(torch.ones(3).to(torch.float8_e4m3fn))]},
                ValueError,
                "'0' is torch.float8_e4m3fn",
            ),
            ({"params": [nn.Parameter(torch.ones(3, 2)[:, :1])]}, ValueError, "'0' has gaps or repeated entries"),
            ({"params": [nn.Parameter(torch.ones(3, device="meta"))]}, ValueError, "'0' is on the meta device"),
            ({"rounding": "up"}, ValueError, "unknown rounding 'up'"),
            ({"params": [("a", nn.Parameter(torch.ones(n))) for n in (3, 4)]}, ValueError, "named 'a'"),
            ({"params": [{"params": [nn.Parameter(torch.ones(3))], "lr": -2.0}]}, ValueError, "is -2.0"),
            ({"params": [nn.Parameter(torch.ones(3, dtype=torch.bfloat16))]}, ValueError, "below the resolution"),
        ],
    )
    def test_bad_input_is_named(self, options, error, match):
        good = {"params": [nn.Parameter(torch.ones(3))], "estimator": methods.make("mezo", epsilon=1e-3), "lr": 0.1}
        with pytest.raises(error, match=match):
            ZerothOrder(**{**good, **options})

    def test_a_rate_that_went_bad_is_told_before_anything_moves(self):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        before = vector(model)
        optimizer.param_groups[0]["lr"] = math.nan
        with pytest.raises(ValueError, match="is nan"):
            optimizer.step(lambda: loss_of(model))
        assert torch.equal(vector(model), before)


class TestLossesThatAreNotFinite:
    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    @pytest.mark.parametrize("at", [1, 2])
    def test_the_step_is_skipped_and_counted(self, bad, dtype, at):
        model, calls = network(dtype), []
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo", epsilon=0.1), lr=0.05)
        taken(model, optimizer, 1)
        before = vector(model)

        def closure() -> Tensor:
            calls.append(1)
            return loss_of(model) * (bad if len(calls) == at else 1.0)

        with pytest.warns(RuntimeWarning, match=r"of step 1 .*skipped; lower the learning rate"):
            loss = optimizer.step(closure)
        assert not loss.isfinite() and optimizer.skipped == 1
        assert torch.equal(vector(model), before)
        taken(model, optimizer, 1)
        assert optimizer.skipped == 1 and not torch.equal(vector(model), before)

    def test_ten_in_a_row_end_it(self):
        model = network()
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
        taken(model, optimizer, 1)
        before = vector(model)
        with pytest.warns(RuntimeWarning), pytest.raises(FloatingPointError, match="as in the 9 steps before"):
            for _ in range(11):
                optimizer.step(lambda: math.nan)
        assert optimizer.skipped == 10 and torch.equal(vector(model), before)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("n", [1, 3])
def test_what_is_remembered_changes_no_bit(law, n, monkeypatch):
    estimator, ends, draws = methods.make("mezo", law=law, n=n, epsilon=0.1), [], []
    for room in (restoring.REMEMBERED_BYTES, 0):  # of large models nothing is remembered
        monkeypatch.setattr(restoring, "REMEMBERED_BYTES", room)
        model = network()
        groups = [list(model[:1].named_parameters()), list(model[2:].named_parameters())]
        space = ParameterSpace(groups)
        rates = {name: 3.0 for name, _ in groups[1]}
        decays = {name: float(name in rates) for group in groups for name, _ in group}
        for key in range(3):
            told = query(space, estimator, lambda model=model: loss_of(model), key, ())
            space.step_(told.gradient, -0.1, 0.01, Groups(rates, decays))
        assert space.sweeps == 3 * (2 * n + 1)
        ends.append(vector(model))
        draws.append(len(space.engine._drawn))
    assert torch.equal(*ends)
    assert draws == [n, 0]


def test_a_thousand_small_tensors_are_drawn_once_a_step(monkeypatch):
    model = nn.ParameterList([nn.Parameter(torch.ones(3)) for _ in range(1000)])
    optimizer = ZerothOrder(model.parameters(), methods.make("mezo"), lr=0.05)
    drawn, direction = [], LAWS["gaussian"].__class__.direction

    def counting(*args):
        draw = direction(*args)
        return lambda block: (drawn.append(block.offset), draw(block))[1]

    monkeypatch.setattr(LAWS["gaussian"].__class__, "direction", counting)
    optimizer.step(lambda: sum(p.square().sum() for p in model))
    assert len(drawn) == len(set(drawn)) == 1000
