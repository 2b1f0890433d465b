"""Runs with rules besides SGD, and with parts of one's own: continued, replayed, and reported from the journal."""

import json
import sys

import pytest
import torch
from interrupted import gone
from sampled import diagonal

from llm.__main__ import main
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading
from llm.options.journal import main as journal
from llm.options.train import TrainOptions
from llm.steppers.method import TrainingMethod
from llm.studies.rates import forward_passes_a_step
from zobench import derive, query
from zobench.run.journal import read

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"steps": 8, "train": 20, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 4, "lr": 1e-4}
QUICK |= {"baselines": False}
RULES = {
    "adam": {"rule": "adam:beta1=0.8", "lr": 1e-3, "weight_decay": 0.1},
    "momentum window": {"rule": "momentum:window=3", "method": "mezo:n=2"},
    "momentum": {"rule": "momentum", "engine": "in-forward"},
    "lozo-m": {"method": "lozo-m:every=3", "weight_decay": 0.1},
    "zo-muon": {"method": "zo-muon:every=3:rank=8:n=2", "lr": 1e-3},
    "zo-muon-normalised": {"method": "zo-muon-normalised:every=3:rank=8:n=2", "lr": 1e-3},
    "zo-mopi": {"method": "zo-mopi:every=3:rank=8:n=2", "lr": 1e-3},
    "adam window": {"rule": "adam:window=2", "lr": 1e-3, "dtype": "bfloat16", "rounding": "stochastic"},
}


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), **changes})


def run(tmp_path, stop=None, **changes):
    return gone(Loop.of(options(tmp_path, **changes)), stop)


def rows(folder, *kinds):
    lines = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    of_the_first_time = ("seconds", "peak_mb", "moved", "cosine", "length")
    kept = ({k: v for k, v in row.items() if k not in of_the_first_time} for row in lines)
    return [row for row in kept if row["kind"] in kinds]


ALL = ("step", "evaluation", "final")


def saved(folder):
    return (folder / "model/model.safetensors").read_bytes()


@pytest.mark.parametrize(("every", "name"), diagonal([3, 0], RULES))
def test_a_run_with_a_rule_is_continued_and_replayed_to_the_bit(name, every, tmp_path, capsys):
    changes = {"select": "last", "checkpoint_every": every, **RULES[name]}
    run(tmp_path, **changes, out=str(tmp_path / "whole"))
    run(tmp_path, stop=5, **changes)
    run(tmp_path, **changes)
    assert f"continued at step 5, of which {every} came from a checkpoint" in capsys.readouterr().out
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")
    assert rows(tmp_path / "run", *ALL) == rows(tmp_path / "whole", *ALL)
    assert journal(["replay", str(tmp_path / "run")]) == 0 and "equal to the bit" in capsys.readouterr().out
    run(tmp_path, select="last", lr=changes.get("lr", 1e-4), out=str(tmp_path / "sgd"))
    assert saved(tmp_path / "sgd") != saved(tmp_path / "run")
    with pytest.raises(ValueError, match=r"rule: .* there, 'sgd' now"):
        train(options(tmp_path, **{**changes, "rule": "sgd"}, resume=True))


@pytest.mark.parametrize("rule", ["adm", "adam:beta1=2", "adam:window"])
def test_a_rule_that_is_none_is_refused_before_a_model_is_loaded(rule, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(ValueError, match=r"Did you mean .adam.|beta1 is 2|is not option=value"):
        Loop.of(options(tmp_path, rule=rule))


def lose_all(lines):
    return []


def cut(lines):
    return [*lines[:3], lines[3][: len(lines[3]) // 2]]


def flip(lines):
    """Dev losses of another order, and another selected step."""
    return [
        line.replace('"dev_loss": ', '"dev_loss": 9').replace('"selected_step": ', '"selected_step": 1')
        for line in lines
    ]


@pytest.mark.parametrize(("every", "damage"), diagonal([3, 0], [lose_all, cut, flip]))
def test_rows_are_a_report_that_decides_nothing(damage, every, tmp_path):
    changes = {"lr": 1.4e-3, "seed": 3, "eval_every": 3, "checkpoint_every": every, "steps": 12}
    run(tmp_path, **changes, out=str(tmp_path / "whole"))
    assert rows(tmp_path / "whole", "final")[0]["selected_step"] == 3
    run(tmp_path, stop=8, **changes)
    file = tmp_path / "run/rows.jsonl"
    file.write_text("".join(damage(file.read_text().splitlines(keepends=True))))
    if damage is flip:
        with pytest.raises(ValueError, match=r"rows\.jsonl is damaged .*: remove it and give the same command again"):
            run(tmp_path, **changes)
        file.unlink()
    run(tmp_path, **changes)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")
    assert rows(tmp_path / "run", *ALL) == rows(tmp_path / "whole", *ALL)


@pytest.mark.parametrize("damage", [lose_all, cut, flip])
def test_rows_of_a_finished_run_change_no_weights(damage, tmp_path, capsys):
    changes = {"lr": 3e-3, "eval_every": 2}
    run(tmp_path, **changes)
    before, file = saved(tmp_path / "run"), tmp_path / "run/rows.jsonl"
    wanted = rows(tmp_path / "run", *ALL)
    file.write_text("".join(damage(file.read_text().splitlines(keepends=True))))
    assert journal(["replay", str(tmp_path / "run")]) == 0 and "equal to the bit" in capsys.readouterr().out
    if damage is flip:
        with pytest.raises(ValueError, match=r"rows\.jsonl is damaged .*: remove it and give the same command again"):
            train(options(tmp_path, **changes))
        file.unlink()
    train(options(tmp_path, **changes))
    assert saved(tmp_path / "run") == before
    assert [row for row in wanted if row not in rows(tmp_path / "run", *ALL)] == []


@pytest.mark.parametrize("every", [3, 0])
@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_a_first_order_run_keeps_a_journal_and_doubles_no_row(method, every, tmp_path):
    changes = {"method": method, "lr": 1e-3, "checkpoint_every": every}
    run(tmp_path, **changes, out=str(tmp_path / "whole"))
    run(tmp_path, stop=7, **changes)
    run(tmp_path, **changes)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")
    assert rows(tmp_path / "run", *ALL) == rows(tmp_path / "whole", *ALL)
    kept = [read(tmp_path / name / "journal.bin").records for name in ("run", "whole")]
    assert [(r.losses, r.lr) for r in kept[0]] == [(r.losses, r.lr) for r in kept[1]] and len(kept[0]) == 8


OWN = """
from dataclasses import dataclass
from typing import NamedTuple

import torch

from zobench import Combination, Estimate, Estimator, Gaussian, Plan, Term, UpdateRule
from zobench.groups import UNIFORM


class Mean(NamedTuple):
    loss: float = 0.0
    steps: int = 0


@dataclass(frozen=True)
class Baseline(Estimator):
    epsilon: float = 0.05
    n: int = 1

    def init(self):
        return Mean()

    def ask(self, key, state, batch=()):
        offsets = torch.full((self.n, 1), self.epsilon, dtype=torch.float64)
        return Plan(Gaussian(), key, offsets, torch.ones_like(offsets))

    def tell(self, plan, losses, state):
        coefficients = (losses[:, 0] - state.loss) / self.epsilon / self.n
        mean = state.loss + (float(losses.mean()) - state.loss) / (state.steps + 1)
        return Estimate(Combination((Term(plan.law, plan.key, coefficients),)), Mean(mean, state.steps + 1))


def make(n=1, epsilon=0.05):
    return Baseline(epsilon, n)


class Law(Gaussian):
    def unit(self, dim):
        return 2.0


def law():
    return Law()


@dataclass(frozen=True)
class Sign(UpdateRule):
    lr: object
    weight_decay: float = 0.0
    groups: object = UNIFORM

    def init(self, space):
        return 0

    def rate(self, memory):
        return self.lr(memory) if callable(self.lr) else self.lr

    def apply_(self, space, gradient, memory):
        space.update_((gradient,), lambda block, x, g: g[0].sign(), -self.rate(memory), 0.0, self.groups)
        return memory + 1

    def skip(self, memory):
        return memory + 1


nothing = 3
"""
PARTS = {
    "estimator": {"method": "my_module:make:n=2"},
    "law": {"method": "mezo:law=my_module.law"},
    "rule": {"rule": "my_module:Sign"},
}


@pytest.fixture
def my_module(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/my_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    yield
    sys.modules.pop("my_module", None)


@pytest.mark.parametrize(("every", "part"), diagonal([3, 0], PARTS))
def test_a_part_of_ones_own_is_trained_continued_and_replayed(part, every, my_module, tmp_path, capsys):
    changes = {"select": "last", "checkpoint_every": every, "lr": 1e-5, **PARTS[part]}
    run(tmp_path, **changes, out=str(tmp_path / "whole"))
    run(tmp_path, stop=5, **changes)
    run(tmp_path, **changes)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")
    assert rows(tmp_path / "run", *ALL) == rows(tmp_path / "whole", *ALL)
    (final,) = rows(tmp_path / "run", "final")
    assert final["method"] == changes.get("method", "mezo")
    named = [word for name in ("method", "rule") if name in changes for word in (f"--{name}", changes[name])]
    assert journal(["replay", str(tmp_path / "run"), *named]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    plain = {"method": "mezo", "rule": "sgd", "select": "last", "lr": 1e-5}
    run(tmp_path, **plain, out=str(tmp_path / "plain"))
    assert saved(tmp_path / "plain") != saved(tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "my_modul:make"}, "the module 'my_modul' cannot be imported"),
        ({"method": "my_module:mak"}, "the module 'my_module' has no function 'mak'"),
        ({"method": "my_module:nothing"}, "has no function 'nothing'"),
        ({"method": "my_module:law"}, "which is no zobench.Estimator"),
        ({"rule": "my_module:make"}, r"does not take the options .*'lr'"),
        ({"method": "mezo:law=my_modul.law"}, "my_modul"),
    ],
)
def test_a_part_that_is_not_there_is_refused_in_a_sentence(changes, message, my_module, tmp_path):
    with pytest.raises(ValueError, match=message):
        Loop.of(options(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_a_replay_asks_for_the_module_and_runs_none_that_a_file_names(my_module, tmp_path, capsys):
    run(tmp_path, method="my_module:make", lr=1e-5)
    sys.modules.pop("my_module")
    assert main(["journal", "replay", str(tmp_path / "run")]) == 2
    assert "--method" in capsys.readouterr().err and "my_module" not in sys.modules


def test_evaluations_read_what_steps_read(tmp_path):
    """With a float32 master, dev is measured with bfloat16 weights; those of float32 have another loss."""
    changes = {"rounding": "master", "dtype": "bfloat16", "select": "last", "steps": 4, "lr": 1e-3}
    session = run(tmp_path, **changes)
    evaluated = rows(tmp_path / "run", "evaluation")[-1]["dev_loss"]
    held, model = session.context.objective.measure(session.context.data.dev).loss, session.context.language_model.model
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for p in model.parameters():
        p.data = p.data.to(torch.bfloat16)
    assert session.context.objective.measure(session.context.data.dev).loss == pytest.approx(evaluated, rel=1e-6)
    assert abs(held - evaluated) > 1e-5  # planted: what the weights that are held would say
    events = [event.body for event in read(tmp_path / "run/journal.bin").events]
    (kept,) = [body for body in events if body["kind"] == "evaluation" and body["step"] == 4]
    assert kept["dev_loss"] == evaluated


SEVERAL_ROUNDS = ("zo-ranksgd:n=4", "mezo-svrg:whole=", "mezo-svrg:every=3", "zo-sgd-conservative", "dizo:every=2")


@pytest.mark.parametrize("method", SEVERAL_ROUNDS)
def test_a_run_of_several_rounds_is_continued_and_replayed_to_the_bit(method, tmp_path, capsys):
    changes = {"select": "last", "checkpoint_every": 3, "method": method, "steps": 6, "lr": 1e-3}
    run(tmp_path, **changes, out=str(tmp_path / "whole"))
    run(tmp_path, stop=4, **changes)
    run(tmp_path, **changes)
    assert saved(tmp_path / "run") == saved(tmp_path / "whole")
    assert rows(tmp_path / "run", *ALL) == rows(tmp_path / "whole", *ALL)
    assert journal(["replay", str(tmp_path / "run")]) == 0 and "equal to the bit" in capsys.readouterr().out


def test_an_estimator_that_chooses_a_point_is_told_the_learning_rate(tmp_path):
    chosen = TrainingMethod.parse("random-search").estimator(options(tmp_path, lr=3e-4))
    assert chosen.lr == 3e-4
    assert TrainingMethod.parse("random-search:lr=0.5").estimator(options(tmp_path, lr=3e-4)).lr == 0.5
    assert TrainingMethod.parse("prototypes:Conservative").estimator(options(tmp_path, lr=3e-4)).lr == 0.01


def test_a_loss_that_a_run_does_not_have_is_refused_before_a_model_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(ValueError, match=r"asks for the loss 'dev', which a run does not have"):
        Loop.of(options(tmp_path, method="mezo-svrg:whole=dev"))
    for changes, message in {
        ("mezo", 4): "has no anchor",
        ("mezo-svrg", 0): "give 1 or more examples",
        ("mezo-svrg", 99): "there are 20 training examples",
    }.items():
        method, examples = changes
        with pytest.raises(ValueError, match=message):
            Loop.of(options(tmp_path, method=method, anchor_examples=examples))


@pytest.mark.parametrize(("examples", "passes"), [(None, 5), (6, 2)])
def test_the_anchor_is_the_estimate_of_all_training_examples(examples, passes, tmp_path):
    """Two closures and equal directions: step 0 takes the anchor, step 1 subtracts the minibatch's estimate at the
    snapshot along the directions of its own.
    """
    told = options(tmp_path, method="mezo-svrg:n=2", lr=1e-2, anchor_examples=examples)
    loop = Loop.of(told)
    context, stepper = loop.context, loop.stepper
    whole = context.whole()
    read = whole.losses.examples
    assert whole.passes == passes and len(read) == (examples or 20)
    assert len({id(each) for each in read} & {id(each) for each in context.data.train}) == len(read)
    plain = TrainingMethod.parse("mezo:n=2").stepper(told, context.language_model)
    keys = [derive(*context.keys["key"], step) for step in range(2)]
    start = [p.detach().clone() for p in context.language_model.model.parameters()]

    def estimated(losses, key):
        estimate = query(plain.space, plain.estimator, losses, key, ())
        plain.settle()
        return estimate.gradient.terms[0]

    anchor = estimated(whole.losses, derive(keys[0], "anchor"))
    minibatch = estimated(context.losses(0), derive(keys[0], "anchor"))
    at_snapshot = estimated(context.losses(1), keys[1])
    stepper.step(keys[0], context.losses(0))
    stepper.settle()
    assert (stepper.forward_passes, stepper.state.step) == (4 * passes, 1)
    (kept,) = stepper.state.anchor.terms
    assert kept.coefficients == pytest.approx(anchor.coefficients, abs=3e-3)
    assert kept.coefficients != pytest.approx(minibatch.coefficients, abs=3e-2)  # planted: the minibatch for all
    snapshot = stepper.space.snapshots["anchor"]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(snapshot, start, strict=True))
    here = estimated(context.losses(1), keys[1])
    taken = stepper.step(keys[1], context.losses(1))
    seen = torch.tensor(taken.record.losses, dtype=torch.float64).view(2, 2, 2)
    slopes = (seen[..., 0] - seen[..., 1]).abs() / (2e-3 * 2)
    assert slopes[0] == pytest.approx(here.coefficients.abs(), abs=3e-3)
    assert slopes[1] == pytest.approx(at_snapshot.coefficients.abs(), abs=3e-3)
    assert slopes[0] != pytest.approx(slopes[1], abs=3e-2)  # planted: no step between snapshot and point
    assert stepper.forward_passes == 4 * passes + 8


def test_a_budget_counts_the_examples_of_the_anchor():
    sizes = {"batch": 4, "train": 20}
    assert forward_passes_a_step("mezo-svrg:n=2:every=2", 1e-3, **sizes) == 6 + 4 * 4 // 2
    assert forward_passes_a_step("mezo-svrg:n=2", 1e-3, **sizes, anchor_examples=4) == 6
    assert forward_passes_a_step("mezo-svrg:whole=", 1e-3) == 3
    with pytest.raises(ValueError, match="give --train"):
        forward_passes_a_step("mezo-svrg", 1e-3)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"method": "zo-adam"}, ""),
        ({"method": "random-search", "schedule": "cosine"}, "random-search compares points at lr"),
        ({"method": "random-search", "rule": "momentum"}, "random-search compares points at lr"),
        ({"method": "zo-sgd-conservative", "warmup": 3}, "zo-sgd-conservative compares points at lr"),
        ({"method": "random-search"}, ""),
        ({"method": "spall"}, "the paper of spall has a learning rate that falls; this run takes --schedule"),
        ({"method": "prototypes:Conservative", "rule": "adam"}, ""),
    ],
)
def test_what_is_legal_and_misleading_is_told(changes, told, tmp_path):
    note = TrainingMethod.parse(changes["method"]).note(options(tmp_path, **changes))
    assert told in note and bool(told) is bool(note)


def test_the_rule_of_the_method_is_what_a_configuration_keeps(tmp_path):
    """A run that was begun before methods had rules goes on by the command that began it."""
    assert options(tmp_path).rule == options(tmp_path, rule="sgd").rule == "sgd"
    assert options(tmp_path, method="zo-adam").rule == "adam"
    assert options(tmp_path, method="zo-adam", rule="sgd").rule == "sgd"
    assert options(tmp_path, method="adamw").rule == "sgd"
