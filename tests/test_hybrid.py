"""The hybrid method: first order on the last blocks, zeroth order on the rest, both at the same point."""

import pytest
import tiny_models
import torch
from test_rule_runs import ALL, options, rows, run, saved

from llm.cost.live import LiveMemory
from llm.loop.loop import Loop
from llm.model import loading
from llm.model.last_blocks import frozen, last_blocks
from llm.model.trainable import tensors
from llm.options.journal import main as journal
from llm.options.train import TrainOptions
from llm.run.check import check
from llm.steppers.hybrid import HybridStepper
from llm.steppers.method import TrainingMethod
from zobench import derive

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def made():
    return loading.load("tiny-opt")


def weights(model):
    return {each.name: each.parameter.detach().clone() for each in tensors(model)}


def a_loss(made, seed=0):
    ids = torch.randint(5, 300, (3, 9), generator=torch.Generator().manual_seed(seed))
    return lambda: made.model(input_ids=ids, labels=ids).loss


@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama", "bloom", "roberta", "gpt_neox"])
def test_gradients_reach_the_last_blocks_and_what_is_called_after_them(kind):
    made = tiny_models.language_model(kind)
    last = last_blocks(made, 1)
    names = {name for each in last for name in each.names}
    assert not any(".0." in name or ("embed" in name.lower() and "layers.1" not in name) for name in names), names
    ids = torch.randint(5, 300, (2, 7))
    rest = [each for each in tensors(made.model) if each.name not in {tied.name for tied in last}]
    with frozen(rest):
        made.model(input_ids=ids).logits.logsumexp(-1).sum().backward()
    assert all(each.parameter.grad is not None for each in last)
    assert all(each.parameter.grad is None and each.parameter.requires_grad for each in rest)
    of_first = {each.name for each in tensors(made.model) if ".0." in each.name}
    assert of_first and of_first <= {each.name for each in rest}


@pytest.mark.parametrize("engine", ["plain", "in-forward", "paired"])
def test_a_step_is_that_of_each_half_alone_at_the_same_point(engine, made):
    """Two steps, so that a pending step of the rest would show in the gradient of the last blocks."""
    told = TrainOptions(method="hybrid:blocks=2:rate=0.1:zeroth=mezo(n=2)", lr=1e-3, engine=engine, steps=9)
    stepper = TrainingMethod.parse(told.method).stepper(told, made)
    assert isinstance(stepper, HybridStepper)
    apart = loading.load("tiny-opt")
    last, mine = ({each.name for each in last_blocks(one, 2)} for one in (made, apart))
    for step in range(2):
        before = weights(apart.model)
        loss = a_loss(apart, step)()
        apart.model.zero_grad()
        loss.backward()
        slopes = {each.name: each.parameter.grad for each in tensors(apart.model)}
        alone = TrainOptions(method="mezo:n=2", lr=1e-3, engine="plain", steps=9)
        with frozen([each for each in tensors(apart.model) if each.name in mine]):
            zeroth = TrainingMethod.parse("mezo:n=2").stepper(alone, apart)
        taken = zeroth.step(derive("hybrid", step), a_loss(apart, step))
        zeroth.settle()
        for each in tensors(apart.model):
            if each.name in last:
                assert torch.equal(each.parameter, before[each.name])
                each.parameter.data -= 0.1 * slopes[each.name]
        seen = stepper.step(derive("hybrid", step), a_loss(made, step))  # the first one's restore is left pending
        assert seen.record.losses == pytest.approx((loss.item(), *taken.record.losses), rel=2e-5)
        if step:
            stepper.settle()
        for name, value in weights(apart.model).items() if step else ():
            torch.testing.assert_close(weights(made.model)[name], value, rtol=2e-4, atol=1e-5, msg=name)
            assert not torch.equal(value, before[name])  # planted: a half that stays
    assert (stepper.steps, stepper.forward_passes, stepper.backward_passes) == (2, 10, 2)


def test_only_the_last_blocks_hold_gradients_and_moments(made):
    told = TrainOptions(method="hybrid:first=adamw", lr=1e-3)
    stepper = TrainingMethod.parse(told.method).stepper(told, made)
    stepper.step(1, a_loss(made))
    size = sum(each.size for each in stepper.last)
    held = sum(p.grad.numel() for p in made.model.parameters() if p.grad is not None)
    assert held == size < sum(each.size for each in tensors(made.model)) / 4
    moments = [v for name, v in stepper.checkpoint_state()[0].items() if "exp_avg" in name]
    assert sum(v.numel() for v in moments) == 2 * size
    ids = torch.randint(5, 300, (16, 60))
    peaks = {}
    for blocks in (1, 4):
        one = loading.load("tiny-opt")
        part = TrainingMethod.parse(f"hybrid:blocks={blocks}").stepper(told, one)
        with LiveMemory() as memory:
            part.step(1, lambda one=one: one.model(input_ids=ids, labels=ids).loss)
        peaks[blocks] = memory.peak
    assert peaks[1] < 0.8 * peaks[4]  # activations of the last block alone


def test_a_half_that_is_not_finite_skips_both(made):
    told = TrainOptions(method="hybrid", lr=1e-3)
    stepper = TrainingMethod.parse("hybrid").stepper(told, made)
    before, good = weights(made.model), a_loss(made)
    taken = stepper.step(1, lambda: good() * float("nan"))
    assert "loss nan" in taken.record.skipped and len(taken.record.losses) == 1
    calls = []

    def later():
        calls.append(1)
        return good() * (float("inf") if len(calls) > 1 else 1.0)

    assert stepper.step(2, later).record.skipped
    stepper.settle()
    after = weights(made.model)
    last = {each.name for each in stepper.last}
    assert all(torch.equal(after[name], before[name]) for name in last)
    assert all(torch.allclose(after[name], before[name], atol=1e-6) for name in before)
    assert not stepper.step(3, good).record.skipped and stepper.steps == stepper.first.steps == 3


def test_an_interrupted_run_ends_at_the_same_bits_and_a_replay_is_refused(tmp_path, capsys):
    method = "hybrid:first=adamw:rate=0.003:zeroth=mezo(n=2)"
    changes = {"select": "last", "checkpoint_every": 3, "method": method, "rule": "momentum", "lr": 1e-4}
    run(tmp_path, **changes, out=str(tmp_path / "whole"))
    run(tmp_path, stop=5, **changes)
    run(tmp_path, **changes)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")
    assert rows(tmp_path / "run", *ALL) == rows(tmp_path / "whole", *ALL)
    (final,) = rows(tmp_path / "run", "final")
    assert (final["forward_passes"], final["backward_passes"]) == (5 * final["step"], final["step"])
    assert journal(["replay", str(tmp_path / "run")]) == 2
    assert "gradient steps, which recorded losses cannot rebuild" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "hybrid:blocks=0"}, "blocks is 0"),
        ({"method": "hybrid:zeroth=adamw"}, "zeroth-order method"),
        ({"method": "hybrid:first=adam"}, "first-order method"),
        ({"method": "hybrid:rate=-1"}, "rate is -1"),
        ({"method": "hybrid", "rates": ("*=1e-3",)}, "hybrid:rate="),
        ({"method": "hybrid", "rows": "touched"}, "leave --rows out"),
        ({"method": "hybrid", "rounding": "stochastic"}, "leave --rounding out"),
    ],
)
def test_what_cannot_be_joined_is_refused_before_a_model_is_loaded(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        check(options(tmp_path, **changes))


def test_blocks_that_a_model_does_not_have_and_halves_without_tensors_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"blocks is 9, but .* has 4 layers"):
        Loop.of(options(tmp_path, method="hybrid:blocks=9"))
    with pytest.raises(ValueError, match="0 trained tensors in the last blocks"):
        Loop.of(options(tmp_path, method="hybrid", trained=("*embed_tokens*",)))


def test_another_rule_than_that_of_the_paper_is_told(tmp_path):
    told = TrainingMethod.parse("hybrid:zeroth=zo-adam")
    assert "uses the rule adam; this run takes --rule sgd" in told.note(options(tmp_path, method=told.text))
    assert not told.note(options(tmp_path, method=told.text, rule="adam"))
