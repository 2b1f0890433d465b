"""ZerothOrder: torch's conventions for an optimizer, bad input, and losses that are not finite."""

import math

import pytest
import torch
from optimizers import loss_of, network, stepped, taken, vector
from torch import Tensor, nn
from torch.optim import lr_scheduler

from zobench import SGD, ModuleSpace, keyed, methods, query
from zobench.optim import ZerothOrder

pytestmark = pytest.mark.usefixtures("one_thread")


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
            ({"estimator": "mezo"}, TypeError, "estimator is 'mezo': give an estimator"),
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
