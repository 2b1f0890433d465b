"""Spaces put back what they moved, whatever the loss does; and what they ask of a loss."""

import math

import pytest
import torch
from bowl import GAUSSIAN, METHODS, line_sum, losses_of, network, relative, twins
from torch import Tensor, nn

from zobench import SGD, CentralStencil, FlatSpace, ForwardStencil, LineEstimator, ModuleSpace, methods, query
from zobench.law import LAWS
from zobench.space.closure import evaluate, require_reproducible

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("law", ["gaussian", "rademacher", "sphere"])
@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_zero_restores(method, law):
    model = network()
    space = ModuleSpace(model)
    before = space.vector()
    told = query(space, methods.make(method, epsilon=1e-3, law=law), lambda: losses_of(model), 3, ())
    assert relative(space.vector(), before) > 1e-4  # perturbed until it is settled
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


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_of_a_vector_that_is_not_finite_is_refused(bad):
    """Of a module it is a check of spaces."""
    flat = FlatSpace(torch.ones(4, dtype=torch.float64))
    with pytest.raises(FloatingPointError, match="not finite"):
        flat.step_(line_sum(GAUSSIAN, 0, 1.0, bad), 0.1)
    assert torch.equal(flat.x, torch.ones(4, dtype=torch.float64))


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


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_of_examples_are_averaged_in_float32(dtype):
    losses = 1.0 + torch.arange(4096) % 7 / 64
    low = losses.to(dtype)
    assert evaluate(lambda: low) == pytest.approx(float(low.double().mean()), rel=1e-6)
    assert float(low.mean()) != pytest.approx(float(low.double().mean()), rel=1e-6)  # planted: averaged as they come
    assert evaluate(lambda: losses.double()) == pytest.approx(float(losses.double().mean()), rel=1e-15)
    assert evaluate(lambda: 2.5) == 2.5
