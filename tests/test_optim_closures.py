"""What closures return, need and do behind the optimizer's back."""

import copy
import math
import random
import warnings
from decimal import Decimal
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from zobench import methods
from zobench.optim import ZerothOrder
from zobench.space.closure import evaluate

pytestmark = pytest.mark.usefixtures("one_thread")

MEZO = methods.make("mezo", epsilon=1e-3)
INPUTS = torch.linspace(-1, 1, 9 * 5).reshape(9, 5)
LABELS = torch.arange(9) % 3


def network(*middle: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), *(middle or (nn.Tanh(),)), nn.Linear(8, 3))


def vector(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


class TestReturnValues:
    @pytest.mark.parametrize(
        ("value", "match"),
        [
            (None, "returned None: end it with `return loss`"),
            ((torch.tensor(1.0), torch.zeros(3)), "returned a tuple of 2: return the loss alone"),
            ([1.0, 2.0], r"returned a list of 2: .*torch\.stack"),
            ({"loss": 1.0, "logits": 2.0}, r"a dict with the keys \['loss', 'logits'\]: return its \['loss'\]"),
            (SimpleNamespace(loss=torch.tensor(1.0)), r"a SimpleNamespace: return its \.loss alone"),
            ("0.7", "returned str '0.7'"),
            (np.str_("0.7"), "returned str_ np.str_.'0.7'"),
            (1j, "returned complex 1j"),
            (np.complex64(1), "returned a complex64"),
            (np.array(["a"]), "returned an array of <U1"),
            (torch.tensor(1j), r"returned torch.complex64 of shape \(\)"),
            (torch.zeros(0), r"returned torch.float32 of shape \(0,\)"),
            (np.zeros(0), r"returned torch.float64 of shape \(0,\)"),
            (torch.zeros((), device="meta"), "a loss on the meta device"),
            (print, "returned a builtin_function_or_method"),
        ],
    )
    def test_what_is_no_loss_is_named(self, value: Any, match: str):
        model = network()
        before = vector(model)
        with pytest.raises(TypeError, match=match):
            ZerothOrder(model.parameters(), MEZO).step(lambda: value)
        assert torch.equal(vector(model), before)

    @pytest.mark.parametrize("closure", [torch.tensor(1.0), 0.5, [1.0]])
    def test_a_loss_in_place_of_a_closure_is_told(self, closure: Any):
        with pytest.raises(
            TypeError, match=f"the closure is a {type(closure).__name__}: give a function that computes"
        ):
            ZerothOrder(network().parameters(), MEZO).step(closure)

    @pytest.mark.parametrize(
        ("value", "loss"),
        [
            (2, 2.0),
            (True, 1.0),
            (np.float32(0.5), 0.5),
            (np.int64(3), 3.0),
            (np.array(0.5), 0.5),
            (np.array([1, 2]), 1.5),
            (Decimal("0.5"), 0.5),
            (Fraction(1, 4), 0.25),
            (torch.tensor([True, False]), 0.5),
            (torch.tensor([1, 2]), 1.5),
            (torch.tensor([1.0, 0.0]).to_sparse(), 0.5),
            (torch.full((2,), 0.1, dtype=torch.float64), 0.1),
            (torch.tensor(2**24 + 1), 2**24 + 1.0),
            (torch.ones((), requires_grad=True), 1.0),
        ],
    )
    def test_numbers_of_any_kind_are_losses(self, value: Any, loss: float):
        assert evaluate(lambda: value) == loss


class TestDerivatives:
    def test_by_inputs_work_and_leave_no_gradients(self):
        """f = mean (du/dx)^2 with u = a x: the gradient is that of a^2."""
        slope, weights = nn.Parameter(torch.tensor([3.0])), []

        def closure() -> Tensor:
            weights.append(slope.requires_grad)
            x = torch.ones(4, requires_grad=True)
            (du,) = torch.autograd.grad((slope * x).sum(), x, create_graph=True)
            loss = du.square().mean()
            loss.backward()  # nobody's
            torch.autograd.backward(loss)
            return loss

        optimizer = ZerothOrder([slope], MEZO, lr=0.05)
        first = optimizer.step(closure)
        assert float(first) == pytest.approx(9, abs=0.1) and slope.requires_grad and slope.grad is None
        for _ in range(60):
            optimizer.step(closure)
        assert abs(slope.item()) < 1 and not weights[-1]  # it is a constant there

    def test_the_numbers_are_those_of_enable_grad(self):
        def pinn(model: nn.Module) -> Tensor:
            t = INPUTS.clone().requires_grad_(True)
            (du,) = torch.autograd.grad(model(t).sum(), t, create_graph=True)
            return du.square().mean()

        def enabled(model: nn.Module) -> Tensor:
            with torch.enable_grad():
                return pinn(model)

        ends = []
        for loss in (pinn, enabled):
            model = network()
            optimizer = ZerothOrder(model.parameters(), MEZO, lr=0.05)
            for _ in range(3):
                optimizer.step(lambda loss=loss, model=model: loss(model))
            ends.append(vector(model))
        assert torch.equal(*ends)

    def test_by_parameters_are_told_in_words(self):
        model = network()

        def closure() -> Tensor:
            (g,) = torch.autograd.grad(functional.cross_entropy(model(INPUTS), LABELS), model[0].weight)
            return g.square().sum()

        with pytest.raises(ValueError, match=r"parameters are constants in a zeroth-order step.*torch\.func"):
            ZerothOrder(model.parameters(), MEZO).step(closure)
        assert all(p.requires_grad for p in model.parameters())

    def test_the_functional_backward_does_nothing(self):
        model = network()

        def closure() -> Tensor:
            loss = functional.cross_entropy(model(INPUTS), LABELS)
            torch.autograd.backward(loss)
            return loss

        assert ZerothOrder(model.parameters(), MEZO).step(closure).isfinite()
        assert all(p.grad is None for p in model.parameters())


class TestLossesThatDependOnNothing:
    @pytest.mark.parametrize("estimator", [MEZO, methods.make("one-point"), methods.make("kerzoo", n=3)], ids=repr)
    def test_they_are_told_once_at_the_tenth_step(self, estimator):
        model = network()
        outside = functional.cross_entropy(model(INPUTS), LABELS)
        optimizer = ZerothOrder(model.parameters(), estimator, lr=1e-3)
        first = 10 if estimator != methods.make("one-point") else 11  # it needs one to compare with
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(first - 1):
                optimizer.step(lambda: outside)
        with pytest.warns(RuntimeWarning, match="in 10 steps in a row the loss was 1.*computed outside") as told:
            for _ in range(30):
                optimizer.step(lambda: outside)
        assert len(told) == 1

    def test_also_where_each_step_has_its_own_minibatch(self):
        model = network()
        optimizer = ZerothOrder(copy.deepcopy(model).parameters(), MEZO, lr=1e-3)
        with pytest.warns(RuntimeWarning, match="those of a copy"):
            for step in range(10):
                optimizer.step(
                    lambda step=step: functional.cross_entropy(model(INPUTS[step % 9 :]), LABELS[step % 9 :])
                )

    def test_the_resolution_of_a_large_loss_is_told(self):
        model = network()
        optimizer = ZerothOrder(model.parameters(), MEZO, lr=1e-3)
        with pytest.warns(RuntimeWarning, match=r"the loss was 10000001\.0 .* float32 resolves 1 here"):
            for _ in range(10):
                optimizer.step(lambda: functional.cross_entropy(model(INPUTS), LABELS) + 1e7)

    def test_a_plateau_that_ends_is_not(self):
        model, steps = network(), range(25)
        optimizer = ZerothOrder(model.parameters(), MEZO, lr=1e-3)
        for step in steps:  # a warning would be an error
            optimizer.step(lambda step=step: functional.cross_entropy(model(INPUTS), LABELS) if step % 9 == 8 else 1.0)


class TestRandomness:
    def test_dropout_that_is_turned_on_later_is_told_before_the_step(self):
        model = network(nn.Dropout(0.5))
        optimizer = ZerothOrder(model.parameters(), MEZO, lr=1e-3)
        model.eval()
        for _ in range(3):
            optimizer.step(lambda: functional.cross_entropy(model(INPUTS), LABELS))
        model.train()
        before = vector(model)
        with pytest.raises(ValueError, match=r"dropout left on \(call model\.eval\(\)\)"):
            optimizer.step(lambda: functional.cross_entropy(model(INPUTS), LABELS))
        assert torch.equal(vector(model), before)
        model.eval()
        assert optimizer.step(lambda: functional.cross_entropy(model(INPUTS), LABELS)).isfinite()

    def test_random_numbers_that_do_not_matter_are_looked_into_once(self):
        model, calls = network(), []
        optimizer = ZerothOrder(model.parameters(), MEZO, lr=1e-3)

        def closure() -> Tensor:
            calls.append(torch.rand(3))
            return functional.cross_entropy(model(INPUTS), LABELS)

        for _ in range(5):
            optimizer.step(closure)
        assert len(calls) == 2 + 2 + 5 * 2

    def test_seeded_dropout_is_reproducible(self):
        model = network(nn.Dropout(0.5))
        optimizer = ZerothOrder(model.parameters(), MEZO, lr=1e-3)

        def closure() -> Tensor:
            with torch.random.fork_rng():
                torch.manual_seed(1)
                return functional.cross_entropy(model(INPUTS), LABELS)

        assert optimizer.step(closure).isfinite()

    def test_a_skipped_step_looks_for_randomness_of_other_libraries(self):
        model, draws = network(), random.Random(0)
        optimizer = ZerothOrder(model.parameters(), MEZO, lr=1e-3)
        optimizer.step(lambda: functional.cross_entropy(model(INPUTS), LABELS))
        with pytest.raises(ValueError, match="a minibatch drawn inside"):
            optimizer.step(lambda: math.inf if (x := draws.random()) > 0.7 else x)


class TestRunningStatistics:
    @pytest.mark.parametrize("later", [False, True])
    def test_they_are_told_once(self, later):
        model = network(nn.BatchNorm1d(8)).train(not later)
        optimizer = ZerothOrder(model.parameters(), methods.make("mezo", n=2), lr=1e-3)
        optimizer.step(lambda: 1.0)
        with pytest.warns(RuntimeWarning, match="runs a BatchNorm1d in training mode.*eval") as told:
            for _ in range(20):
                optimizer.step(lambda: functional.cross_entropy(model.train()(INPUTS), LABELS))
        assert len(told) == 1

    @pytest.mark.parametrize("quiet", [nn.BatchNorm1d(8).eval(), nn.BatchNorm1d(8, track_running_stats=False)])
    def test_statistics_that_stay_are_not(self, quiet):
        model = network()
        model.insert(1, quiet)
        optimizer = ZerothOrder(model.parameters(), MEZO, lr=1e-3)
        for _ in range(5):
            optimizer.step(lambda: functional.cross_entropy(model(INPUTS), LABELS))

    def test_torch_compile_compiles_once_and_does_not_warn(self):
        compiled: list[object] = []

        def backend(graph: nn.Module, inputs: object) -> object:
            compiled.append(graph)
            return graph.forward

        model = torch.compile(network(), backend=backend)
        optimizer = ZerothOrder(model.parameters(), MEZO, lr=1e-3)
        for _ in range(5):
            optimizer.step(lambda: functional.cross_entropy(model(INPUTS), LABELS))
        torch.compiler.reset()
        assert len(compiled) == 1
