"""The estimator whose interval shrinks with the steps: its schedule, its mean step, and its replay."""

import numpy as np
import pytest
import torch
from torch import nn

import zobench
from llm.steppers.zeroth_order import ZerothOrderStepper
from zobench import (
    SGD,
    CentralStencil,
    FlatSpace,
    Gaussian,
    KernelStencil,
    LineEstimator,
    PerTensor,
    Shrinking,
    derive,
    kernels,
    methods,
    query,
)
from zobench.kernels import chebyshev, legendre, rescaled, shrunk
from zobench.run.journal import Record

pytestmark = pytest.mark.usefixtures("one_thread")

CODE = methods.make("kerzoo-code", steps=10, least=0.05)


@pytest.mark.parametrize(("step", "scale"), [(0, 1.0), (1000, 0.75), (3999, 2.5e-4), (4000, 1e-4), (9999, 1e-4)])
def test_the_schedule_of_the_code(step, scale):
    estimator = methods.make("kerzoo-code")
    assert estimator.scale(step) == pytest.approx(scale, rel=1e-12)
    one = estimator.at(step)
    assert one == LineEstimator(PerTensor(shrunk(legendre(3, 4.0), estimator.scale(step))), CentralStencil(), 1e-3, 3)
    assert one.law.second_moment == pytest.approx(15 * (5 * scale**2 / 3 - 7 * scale**4 / 5), rel=1e-9)


def test_each_part_is_an_option():
    make = lambda **options: methods.make("kerzoo-code", steps=4, **options).at(2)  # noqa: E731
    kernel = legendre(3, 4.0)
    assert make(per_tensor=False).stencil == KernelStencil(shrunk(kernel, 0.5))
    assert make(unscaled=False).law == PerTensor(rescaled(kernel, 0.5))
    assert make(unscaled=False).law.second_moment == 4.0
    assert make(least=1.0).law == PerTensor(kernel)
    assert make(constant=1.0, order=5, n=2, epsilon=0.1).law == PerTensor(shrunk(legendre(5), 0.5))
    plain = make(least=1.0, per_tensor=False, constant=1.0, n=1)
    assert plain == methods.make("kerzoo")


def test_it_asks_as_the_estimator_of_its_step():
    state = CODE.init()
    for step in range(12):
        assert state == step
        ours, theirs = CODE.ask(5, state), CODE.at(step).ask(5, ())
        assert ours.law == theirs.law and torch.equal(ours.offsets, theirs.offsets)
        losses = torch.linspace(0, 1, 6, dtype=torch.float64).reshape(3, 2)
        told = CODE.tell(ours, losses, state)
        one, other = told.gradient.terms[0], CODE.at(step).tell(theirs, losses, ()).gradient.terms[0]
        assert (one.law, one.key) == (other.law, other.key) and torch.equal(one.coefficients, other.coefficients)
        state = told.state


@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize(("unscaled", "means"), [(True, (4.0, 7.44, 4.94, 0.25)), (False, (4.0, 4.0, 4.0, 4.0))])
def test_the_hidden_schedule_of_the_mean_step(unscaled, means, per_tensor):
    """The mean estimate of f = a . x at s = 1, .77, .5, .1: facts/kerzoo.md, item 6."""
    estimator = Shrinking(Gaussian(), legendre(3, 4.0), 0.1, 1, 100, 1e-4, unscaled, per_tensor)
    a, samples = torch.tensor([1.0, -0.5], dtype=torch.float64), 200_000
    space = FlatSpace(torch.zeros(2, dtype=torch.float64))
    for step, mean in zip((0, 23, 50, 90), means, strict=True):
        rows = space.dense(query(space, estimator, lambda x: x @ a, 9, step, (samples,)).gradient)
        along = rows @ a / float(a @ a)
        error = float(along.std()) / samples**0.5
        assert abs(float(along.mean()) - mean) < 5 * error + 5e-3
        assert abs(float(along.mean()) - 1.2 * mean) > 5 * error + 5e-3  # planted: a fifth off


class Net(nn.Module):
    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = nn.Parameter(torch.randn(4, 5, generator=generator).to(dtype))
        self.second = nn.Parameter(torch.randn(3, 4, generator=generator).to(dtype))

    def loss(self) -> torch.Tensor:
        x = torch.linspace(-1, 1, 10, dtype=self.first.dtype).reshape(5, 2)
        return (self.second @ torch.tanh(self.first @ x)).square().mean()


def run(trainer: ZerothOrderStepper, model: Net, steps: range) -> list[Record]:
    return [trainer.step(derive("shrinking", step), model.loss).record for step in steps]


def replay(trainer: ZerothOrderStepper, records: list[Record]) -> None:
    for record in records:
        trainer.replay(record)


def resumed(estimator, dtype, replay=replay) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights of a run of 8 steps, and of one that stops after 5 and is replayed."""
    ends = []
    for stop in (8, 5):
        model = Net(dtype).eval()
        trainer = ZerothOrderStepper(model, estimator, SGD(0.01))
        records, passes = run(trainer, model, range(stop)), trainer.forward_passes
        if stop < 8:
            model = Net(dtype).eval()
            trainer = ZerothOrderStepper(model, estimator, SGD(0.01))
            replay(trainer, records)
            assert trainer.steps == stop
            assert trainer.forward_passes == passes
            run(trainer, model, range(stop, 8))
        trainer.space.settle_()
        ends.append(trainer.space.vector())
    return ends[0], ends[1]


def forgetful(trainer: ZerothOrderStepper, records: list[Record]) -> None:
    """Planted: the state stays where it was."""
    state = trainer.state
    replay(trainer, records)
    trainer.state = state


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("method", ["kerzoo-code:steps=10", "mezo:n=2", "central4", "forward"])
def test_a_resumed_run_is_equal_to_the_bit(method, dtype):
    whole, part = resumed(methods.parse(method, epsilon=0.05), dtype)
    assert torch.equal(whole, part)


@pytest.mark.parametrize("per_tensor", [True, False])
def test_a_replay_that_forgets_the_state_is_seen(per_tensor):
    estimator = methods.make("kerzoo-code", steps=10, epsilon=0.05, per_tensor=per_tensor)
    whole, part = resumed(estimator, torch.float64, forgetful)
    assert not torch.allclose(whole, part, atol=1e-6)


@pytest.mark.parametrize("estimator", [CODE, methods.make("kerzoo-code", unscaled=False, law="sphere")], ids=repr)
def test_the_repr_is_the_identity(estimator):
    again = eval(repr(estimator), {**vars(zobench), **vars(kernels)})
    assert again == estimator and hash(again) == hash(estimator)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": chebyshev(3)}, r"kernel is chebyshev\(3\): give a polynomial one"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": 2.5}, "steps is 2.5"),
        ({"least": 0.0}, "least is 0.0"),
        ({"least": 1.5}, "least is 1.5"),
        ({"unscaled": 1}, "unscaled is 1"),
        ({"per_tensor": "no"}, "per_tensor is 'no'"),
        ({"epsilon": 0.0}, "epsilon is 0.0"),
        ({"n": 0}, "n is 0"),
        ({"law": 3}, "Law"),
    ],
)
def test_bad_input_gets_a_sentence(options, message):
    with pytest.raises(ValueError, match=message):
        Shrinking(**{"law": Gaussian(), "kernel": legendre(3), "epsilon": 0.1, **options})
    with pytest.raises(ValueError, match="law is 3"):
        Shrinking(3, legendre(3), 0.1, per_tensor=True)


def test_options_of_the_schedule_are_kept_as_python_has_them():
    given = Shrinking(Gaussian(), legendre(3), 0.1, 2, np.int64(5), np.float32(0.5), np.bool_(True), np.bool_(False))
    kept = [type(getattr(given, name)) for name in ("steps", "least", "unscaled", "per_tensor")]
    assert kept == [int, float, bool, bool]
