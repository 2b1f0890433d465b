"""Gradient accumulation, clipping, schedules and weight decay: each step against its formula."""

import json
import math

import pytest
import torch
from interrupted import gone

from llm.loop.loop import Loop
from llm.model import loading
from llm.objective import Objective
from llm.objective.minibatch import Minibatch, shares
from llm.options.journal import main as journal
from llm.options.train import TrainOptions
from llm.run import checkpoint
from llm.steppers.clipping import clip
from llm.steppers.first_order import FirstOrderStepper
from llm.steppers.zeroth_order import ZerothOrderStepper
from llm.tasks import Example
from zobench import SGD, Combination, Term, derive, methods
from zobench.groups import decays

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = ("win a prize", "see you", "call now, free entry, you have won a week in the sun", "ok", "where are you now")


def case(dtype="float64"):
    """A model, an objective on it, and examples of different lengths."""
    language_model = loading.load("tiny-opt", dtype=dtype)
    objective = Objective.of(language_model, (" normal", " spam"), 24)
    return language_model.model, objective, objective.encode([Example(t, i % 2) for i, t in enumerate(TEXTS)])


def trained(method, size, steps=3, engine="plain", weighting=lambda batch: batch):
    """Weights and mean losses after some steps in parts of so many examples."""
    model, objective, examples = case()
    if method in ("sgd", "adamw"):
        trainer = FirstOrderStepper(model, method, lambda step: 1e-3, 0.01)
    else:
        trainer = ZerothOrderStepper(model, methods.parse(method), SGD(1e-4, 0.01), engine)
    losses = weighting(Minibatch(objective, examples, size))
    taken = [trainer.step(derive("key", k), losses) for k in range(steps)]
    trainer.settle()
    vector = torch.cat([p.flatten() for p in checkpoint.weights(model).values()])
    return vector, [step.loss for step in taken], trainer


METHODS = ["mezo", "kerzoo", "mezo:n=2", "sgd", "adamw"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1, 2, 3])
def test_parts_take_the_step_of_the_whole(method, size):
    """Of 5 examples, so that the last part has one or two, in float64."""
    (whole, losses, one), (parts, found, other) = trained(method, None), trained(method, size)
    assert found == pytest.approx(losses, rel=1e-6)
    start = torch.cat([p.flatten() for p in checkpoint.weights(case()[0]).values()])
    assert float((parts - whole).norm() / (whole - start).norm()) < 1e-5
    assert (one.forward_passes, one.backward_passes) == (other.forward_passes, other.backward_passes)


class Unweighted(Minibatch):
    """Planted: the mean of the parts' means, which weighs the examples of the shorter part more."""

    def __call__(self):
        return torch.stack([self.objective.losses(part).mean() for part in self._parts()])

    def shares(self):
        parts = list(self._parts())
        for part in parts:
            yield 1 / len(parts), self.objective.losses(part).mean()


@pytest.mark.parametrize("method", METHODS)
def test_a_mean_of_means_is_seen(method):
    whole, losses, _ = trained(method, None)
    wrong, found, _ = trained(method, 3, weighting=lambda batch: Unweighted(*batch.__dict__.values()))
    start = torch.cat([p.flatten() for p in checkpoint.weights(case()[0]).values()])
    assert float((wrong - whole).norm() / (whole - start).norm()) > 1e-3 and found != pytest.approx(losses, rel=1e-3)


@pytest.mark.parametrize("engine", ["in-forward", "paired"])
def test_engines_that_displace_what_is_read_take_parts_too(engine):
    whole, losses, _ = trained("mezo:n=2", None, engine=engine)
    parts, found, _ = trained("mezo:n=2", 2, engine=engine)
    assert found == pytest.approx(losses, rel=1e-6) and torch.allclose(whole, parts, rtol=0, atol=1e-9)


def test_no_more_examples_than_asked_for_pass_at_once(monkeypatch):
    _, objective, examples = case()
    seen = []
    monkeypatch.setattr(Objective, "losses", lambda self, batch: seen.append(len(batch)) or torch.zeros(len(batch)))
    assert Minibatch(objective, examples, 2)().shape == (5,) and seen == [2, 2, 1]
    seen.clear()
    assert [share for share, _ in Minibatch(objective, examples, 4).shares()] == [0.8, 0.2] and seen == [4, 1]
    seen.clear()
    assert len(Minibatch(objective, examples)()) == 5 and seen == [5]


def along(*coefficients, key=7):
    return Combination((Term(methods.make("mezo").law, key, torch.tensor(coefficients, dtype=torch.float64)),))


def test_projected_gradients_are_clipped_and_not_their_shares():
    """n = 4 and a bound of 2: c_i to 1/2; a bound of 2 on c_i itself would leave all but one alone."""
    found = clip(along(0.4, -0.6, 1.9, -50.0), 2.0)
    assert found.gradient.coefficients.tolist() == [0.4, -0.5, 0.5, -0.5] and found.clipped == 3
    assert found.gradient.terms[0].key == 7
    free = clip(along(0.4, -0.6), 2.0)
    assert free.gradient.coefficients.tolist() == [0.4, -0.6] and free.clipped == 0
    infinite = clip(along(0.4, float("-inf")), 2.0).gradient  # is skipped, not stepped along
    assert infinite.coefficients.tolist() == [0.4, float("-inf")]
    assert clip(Combination(), 2.0).clipped == 0


def test_each_term_is_clipped_by_its_own_number_of_directions():
    found = clip(along(3.0) + along(3.0, -0.5, key=8), 2.0)
    assert [term.coefficients.tolist() for term in found.gradient.terms] == [[2.0], [1.0, -0.5]] and found.clipped == 2


def stepped(name, most, steps=4):
    """The trainer, its steps, the coefficients it stepped along, and the weights before and after."""
    model, objective, examples = case()
    trainer = ZerothOrderStepper(model, methods.parse(name), SGD(1e-5), most=most)
    start, gradients, step = trainer.space.vector(), [], trainer.space.step_
    trainer.space.step_ = lambda gradient, *how: gradients.append(gradient) or step(gradient, *how)
    taken = [trainer.step(derive("key", k), Minibatch(objective, examples)) for k in range(steps)]
    return trainer, taken, gradients, start, trainer.space.vector()


@pytest.mark.parametrize("name", ["mezo", "mezo:n=3", "kerzoo:n=2"])
def test_a_clipped_step_is_the_one_written_out(name):
    """Along each direction at most the bound, which lies among the projected gradients."""
    (_, taken, free, *_), n = stepped(name, None), methods.parse(name).n
    assert all(step.clipped == 0 for step in taken)
    slopes = [n * c for gradient in free for c in gradient.coefficients.tolist()]
    most = sorted(map(abs, slopes))[len(slopes) // 2]
    trainer, taken, gradients, start, end = stepped(name, most)
    bounded = [n * abs(c) for gradient in gradients for c in gradient.coefficients.tolist()]
    assert all(slope <= most * (1 + 1e-15) for slope in bounded)
    assert sum(step.clipped for step in taken) == sum(slope >= most * (1 - 1e-15) for slope in bounded) > 0
    wanted = start.clone()
    for step, gradient in zip(taken, gradients, strict=True):
        (term,) = gradient.terms
        assert term.key == step.record.key
        wanted -= 1e-5 * trainer.space.dense(gradient)
    assert torch.allclose(end, wanted, rtol=0, atol=1e-12)
    again = ZerothOrderStepper(case()[0], methods.parse(name), SGD(1e-5), most=most)
    replayed = [again.replay(step.record) for step in taken]
    assert torch.equal(again.space.vector(), end)
    assert [step.clipped for step in replayed] == [step.clipped for step in taken]
    unbounded = ZerothOrderStepper(
        case()[0], methods.parse(name), SGD(1e-5)
    )  # the checksum is that of the clipped step
    with pytest.raises(ValueError, match="gives other coefficients for the recorded losses"):
        for step in taken:
            unbounded.replay(step.record)


@torch.no_grad()
def test_the_first_step_is_clipped_at_the_bound_given():
    """Against the losses at the two points of each of three directions, walked to by hand."""
    model, objective, examples = case()
    estimator = methods.make("mezo", n=3)
    trainer = ZerothOrderStepper(model, estimator, SGD(1e-5))
    start, slopes = trainer.space.vector(), []
    for i in range(3):
        u = trainer.space.dense(Combination((Term(estimator.law, derive("key", 0), torch.eye(3).double()[i]),)))
        at = []
        for side in (1, -1):
            torch.nn.utils.vector_to_parameters(start + side * estimator.epsilon * u, model.parameters())
            at.append(float(objective.losses(examples).double().mean()))
        slopes.append((at[0] - at[1]) / (2 * estimator.epsilon))
    most = 0.99 * sorted(map(abs, slopes))[1]
    _, taken, gradients, *_ = stepped("mezo:n=3", most, 1)
    wanted = [max(-most, min(most, slope)) / 3 for slope in slopes]
    assert gradients[0].coefficients.tolist() == pytest.approx(wanted, rel=1e-3)
    assert taken[0].clipped == 2


def test_an_outlier_moves_the_weights_no_further_than_the_bound():
    for most, far in ((None, True), (1.0, False)):
        model, objective, examples = case()
        trainer = ZerothOrderStepper(model, methods.make("mezo"), SGD(1e-3), most=most)
        start, calls = trainer.space.vector(), []

        def losses(calls=calls, objective=objective, examples=examples):
            calls.append(1)
            return objective.losses(examples) * (1e3 if len(calls) == 1 else 1.0)

        trainer.step(1, losses)
        moved = float((trainer.space.vector() - start).norm()) / math.sqrt(len(start))  # lr |projected gradient|
        assert (moved > 100) is far and (far or moved == pytest.approx(1e-3, rel=0.01))


QUICK = {"steps": 8, "train": 20, "dev": 10, "test": 10, "max_tokens": 24, "batch": 5, "eval_every": 4, "lr": 1e-3}


def run(tmp_path, stop=None, **changes):
    return gone(Loop.of(TrainOptions(**{**QUICK, "select": "last", "out": str(tmp_path), **changes})), stop)


def rows(folder, kind):
    return [row for row in map(json.loads, (folder / "rows.jsonl").read_text().splitlines()) if row["kind"] == kind]


def test_a_run_counts_what_it_clips_and_continues_and_replays_it_to_the_bit(tmp_path, capsys):
    changes = {"method": "mezo:n=2", "clip": 5.0, "micro_batch": 2, "checkpoint_every": 3}
    whole = run(tmp_path / "whole", **changes)
    run(tmp_path / "cut", stop=6, **changes)
    cut = run(tmp_path / "cut", **changes)
    assert torch.equal(whole.stepper.space.vector(), cut.stepper.space.vector())
    (final,), (again,) = rows(tmp_path / "whole", "final"), rows(tmp_path / "cut", "final")
    assert 0 < final["clipped"] == again["clipped"] < 16
    counts = [row["clipped"] for row in rows(tmp_path / "whole", "evaluation")]
    assert counts[0] == 0 and counts == sorted(counts) and counts[-1] == final["clipped"]
    assert journal(["replay", str(tmp_path / "whole")]) == 0 and "equal to the bit" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"clip: 5\.0 there, 6\.0 now"):
        run(tmp_path / "cut", **{**changes, "clip": 6.0})
    with pytest.raises(ValueError, match="micro_batch: 2 there, 3 now"):
        run(tmp_path / "cut", **{**changes, "micro_batch": 3})
    run(tmp_path / "free", steps=1)
    assert "clipped" not in rows(tmp_path / "free", "final")[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip": 1.0, "method": "adamw"}, "adamw has no projected gradients to clip"),
        ({"clip": 0.0}, "clip is 0.0"),
        ({"clip": math.inf}, "clip is inf"),
        ({"micro_batch": 0}, "micro_batch is 0"),
    ],
)
def test_what_cannot_be_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


RATES = {
    "constant": [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
    "linear": [0.5, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6],
    "cosine": [0.5, 1.0, *((1 + math.cos(math.pi * k / 6)) / 2 for k in range(6))],
}
"""Shares of the learning rate in 8 steps, 2 of which are warm-up."""


@pytest.mark.parametrize("schedule", RATES)
@torch.no_grad()
def test_a_run_is_the_loop_of_mezo_written_out(schedule, tmp_path):
    """x <- x - lr_t (g z + wd x), both losses from whole vectors; biases and norms do not decay.

    Losses are float32, and steps so short that their rounding does not grow.
    """
    changes = {"schedule": schedule, "warmup": 2, "weight_decay": 5.0, "dtype": "float64", "lr": 1e-4}
    session = run(tmp_path / "run", **changes)
    other = Loop.of(TrainOptions(**{**QUICK, "out": str(tmp_path / "other"), **changes}))
    space, model = other.stepper.space, other.context.language_model.model
    decaying = [torch.full((s.size,), float(decays(s.name, len(s.shape)))) for s in space.layout.segments]
    decaying = torch.cat(decaying).double()
    assert 0 < decaying.mean() < 1
    x, start, epsilon = space.vector(), space.vector(), 1e-3
    for step, share in enumerate(RATES[schedule]):
        law, key = methods.make("mezo").law, derive("directions", 0, step)
        z = space.dense(Combination((Term(law, key, torch.ones(1, dtype=torch.float64)),)))
        losses = []
        for side in (1, -1):
            torch.nn.utils.vector_to_parameters(x + side * epsilon * z, model.parameters())
            losses.append(float(other.context.objective.losses(other.context.minibatch(step)).double().mean()))
        g = (losses[0] - losses[1]) / (2 * epsilon)
        x = x - 1e-4 * share * (g * z + 5.0 * decaying * x)
    assert float((session.stepper.space.vector() - x).norm() / (x - start).norm()) < 1e-4
    assert [row["lr"] for row in rows(tmp_path / "run", "step")] == pytest.approx([1e-4 * s for s in RATES[schedule]])


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_first_order_steps_decay_as_the_others(method):
    """x <- (1 - lr_t wd) x - lr_t d, with d the gradient, or its sign in the first step of AdamW."""
    model, objective, examples = case()
    trainer = FirstOrderStepper(model, method, lambda step: 1e-2 / (step + 1), 0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    objective.losses(examples).mean().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    record = trainer.step(0, Minibatch(objective, examples)).record
    assert record.lr == 1e-2
    for name, p in model.named_parameters():
        g = gradients.get(name, torch.zeros_like(p))
        d = g if method == "sgd" else g / (g.abs() + 1e-8)
        decay = 0.5 if p.ndim >= 2 else 0.0
        wanted = (1 - 1e-2 * decay) * before[name] - 1e-2 * d
        assert torch.allclose(p, wanted, rtol=0, atol=1e-9), name


def test_losses_that_are_no_minibatch_are_one_part():
    ((share, mean),) = shares(lambda: torch.tensor([1.0, 2.0, 6.0]))
    assert (share, mean.tolist()) == (1.0, 3.0)
