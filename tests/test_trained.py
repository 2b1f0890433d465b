"""Subsets and rates by name pattern, in whole runs."""

import json

import pytest
import torch

from llm.__main__ import main
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading, trainable
from llm.options.train import TrainOptions
from llm.steppers.first_order import FirstOrderStepper
from llm.steppers.rounding import measure, sample
from tests.interrupted import fail_at
from zobench import Groups, ModuleSpace, derive, methods, query, schedule
from zobench.groups import UNIFORM, decays
from zobench.run.journal import read

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"steps": 4, "train": 40, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 2}
PATTERNS = ("*q_proj*", "*layer_norm.bias")


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), "baselines": False, **changes})


def rows(folder, kind):
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def moved(before, after):
    """The names of the tensors that differ."""
    there = dict(after.model.named_parameters())
    return {name for name, p in before.model.named_parameters() if not torch.equal(p, there[name])}


@pytest.mark.parametrize(
    ("method", "engine"), [("mezo", "plain"), ("mezo", "paired"), ("adamw", "auto"), ("sgd", "auto")]
)
def test_what_no_pattern_fits_stays_and_the_rest_moves(method, engine, tmp_path, capsys):
    train(options(tmp_path, method=method, engine=engine, trained=PATTERNS, lr=1e-3, select="last"))
    base = loading.load("tiny-opt")
    wanted = {n for n, _ in base.model.named_parameters() if "q_proj" in n or n.endswith("layer_norm.bias")}
    assert moved(base, loading.load(str(tmp_path / "run/model"))) == wanted
    (note,) = (row for row in rows(tmp_path / "run", "note") if not row["note"].startswith("prompts cut"))
    count = sum(p.numel() for n, p in base.model.named_parameters() if n in wanted)
    total = sum(p.numel() for p in base.model.parameters())
    assert note["note"] == f"trained: {count:,} of {total:,} weights, in {len(wanted)} tensors"
    assert note["note"] in capsys.readouterr().out
    if method == "mezo":
        assert {row[0] for row in read(tmp_path / "run/journal.bin").header["layout"]} == wanted
        assert main(["journal", "replay", str(tmp_path / "run")]) == 0
        assert "equal to the bit" in capsys.readouterr().out


def test_tied_weights_are_fitted_by_every_name_they_have():
    model = loading.load("tiny-opt").model
    trainable.select(model, ["lm_head.weight"])
    (only,) = trainable.tensors(model)
    assert only.name == "model.decoder.embed_tokens.weight" and only.names[1:] == ("lm_head.weight",)
    assert only.size == 2000 * 128
    assert trainable.multipliers(model, ["lm_head.*=1e-3"], 1e-4) == {only.name: pytest.approx(10)}


def test_patterns_select_within_an_adapter(tmp_path):
    session = Loop.of(options(tmp_path, adapter="lora", trained=("*lora_B*",)))
    names = [each.name for each in trainable.tensors(session.context.language_model.model)]
    assert len(names) == 8 and all("lora_B" in name for name in names)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trained": ("*q_prj*",)}, r"--trained '\*q_prj\*' matches none of the 68 trainable tensors; near: q_proj"),
        ({"trained": ("*q_proj*",), "rates": ("*k_proj*=1e-3",)}, "matches none of the 8 trainable tensors"),
        ({"rates": ("*=1e-3", "*.bias=1e-4")}, "matches only tensors that earlier patterns match"),
        ({"rates": ("*.bias=1e-4",), "lr": 0.0}, "give a positive --lr"),
    ],
)
def test_patterns_that_say_nothing_are_told(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Loop.of(options(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("rate", ["*.bias", "=1e-3", "*.bias=0", "*.bias=-1", "*.bias=nan", "*.bias=fast"])
def test_bad_rates_are_told_before_anything_is_loaded(rate, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(ValueError, match="give pattern=rate"):
        Loop.of(options(tmp_path, rates=(rate,)))


RATES = ("*.bias=1e-3", "*fc1*=1e-5")


def wanted_rate(name, lr=1e-4):
    return 1e-3 if name.endswith(".bias") else 1e-5 if "fc1" in name else lr


@pytest.mark.parametrize("engine", ["plain", "in-forward", "paired"])
def test_steps_at_their_rates_are_plain_torchs_and_are_replayed(engine, tmp_path, capsys):
    """One step of MeZO, then of the same direction written out with a rate for each tensor."""
    chosen = options(
        tmp_path,
        steps=1,
        rates=RATES,
        engine=engine,
        weight_decay=0.1,
        schedule="linear",
        warmup=1,
        select="last",
        seed=1,
    )
    train(chosen)
    tuned, base = loading.load(str(tmp_path / "run/model")).model, loading.load("tiny-opt").model
    contents = read(tmp_path / "run/journal.bin")
    (record,) = contents.records
    assert contents.header["rates"] == list(RATES) and record.lr == 1e-4
    space = ModuleSpace(base)
    plan = methods.make("mezo").ask(record.key, ())
    gradient = methods.make("mezo").tell(plan, plan.answers(list(record.losses)), ()).gradient
    u = space.dense(gradient).split([s.size for s in space.layout.segments])
    paced, deviant = [], []
    for segment, part in zip(space.layout.segments, u, strict=True):
        before = dict(base.named_parameters())[segment.name].detach().flatten().double()
        found = dict(tuned.named_parameters())[segment.name].detach().flatten().double()
        for rate, into in ((wanted_rate(segment.name), paced), (1e-4, deviant)):
            after = before * (1 - rate * 0.1 * decays(segment.name, len(segment.shape))) - rate * part
            into.append(float((found - after).abs().max()))
    assert max(paced) < 2e-6 < 1e-4 < max(deviant)
    assert main(["journal", "replay", str(tmp_path / "run")]) == 0
    assert "equal to the bit" in capsys.readouterr().out


def test_an_interrupted_run_with_rates_ends_at_the_same_weights(tmp_path):
    chosen = {"rates": RATES, "trained": ("*.bias", "*fc1*", "*q_proj*"), "engine": "paired", "select": "last"}
    train(options(tmp_path / "whole", **chosen))
    session = Loop.of(options(tmp_path / "broken", **chosen))
    fail_at(session, 2)
    with pytest.raises(ZeroDivisionError):
        session.go()
    with pytest.raises(ValueError, match="another configuration"):
        train(options(tmp_path / "broken", **{**chosen, "rates": ("*.bias=1e-3",)}))
    train(options(tmp_path / "broken", **chosen))
    one, other = (loading.load(str(tmp_path / name / "run/model")) for name in ("whole", "broken"))
    assert not moved(one, other)


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_first_order_groups_have_their_rates_along_the_schedule(method):
    model = loading.load("tiny-opt").model
    groups = Groups(trainable.multipliers(model, RATES, 1e-4))
    trainer = FirstOrderStepper(model, method, schedule("linear", 1e-4, 10, 2), 0.1, groups)
    names = {id(p): name for name, p in model.named_parameters()}
    for step in range(4):
        trainer.step(derive(step), lambda: model(torch.arange(5)[None]).logits.square().mean()[None])
        factor = (0.5, 1.0, 1.0, 7 / 8)[step]
        seen = []
        for group in trainer.optimiser.param_groups:
            for p in group["params"]:
                assert group["lr"] == pytest.approx(factor * wanted_rate(names[id(p)]), rel=1e-12)
                assert group["weight_decay"] == (0.1 if p.ndim >= 2 else 0.0)
                seen.append(names[id(p)])
        assert sorted(seen) == sorted(names.values())


def test_what_rounding_leaves_of_a_step_is_measured_at_its_rates():
    made = loading.load("tiny-opt", dtype="bfloat16")
    groups = Groups(trainable.multipliers(made.model, ("*.bias=1", "*fc1*=1e-2"), 1e-1))
    space = ModuleSpace(made.model)
    told = query(
        space, methods.make("mezo", epsilon=0.1), lambda: made.model(torch.arange(5)[None]).logits.mean(), 1, ()
    )
    space.settle_()
    gradient = told.gradient * (1 / float(told.gradient.coefficients.abs().max()))
    before = sample(space)
    space.step_(gradient, -1e-1, 0.01, groups)
    assert measure(space, before, gradient, 1e-1, 0.01, groups).cosine > 0.999
    assert measure(space, before, gradient, 1e-1, 0.01, UNIFORM).cosine < 0.99  # planted: at one rate
