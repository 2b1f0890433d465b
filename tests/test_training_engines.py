"""Training runs on every engine, and continues and replays on it to the bit."""

import json

import pytest
import torch
from interrupted import gone
from safetensors.torch import load_file
from sampled import sampled

from llm.__main__ import main
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading, trainable
from llm.options.train import TrainOptions
from llm.run import checkpoint
from llm.run.check import check
from llm.steppers.engines import chosen_engine
from zobench import InForwardSpace, ModuleSpace
from zobench.random import streams
from zobench.run.journal import Journal, JournalError, read

pytestmark = pytest.mark.usefixtures("one_thread")


def options(folder, **changed):
    given = {"steps": 6, "train": 8, "dev": 4, "test": 4, "batch": 2, "eval_every": 3, "max_tokens": 16, "lr": 3e-4}
    return TrainOptions(**{**given, "select": "last", "out": str(folder), **changed})


def weights(folder):
    return torch.cat([v.flatten().float() for _, v in sorted(load_file(folder / "model/model.safetensors").items())])


WAYS = {
    "plain": {"engine": "plain"},
    "in-forward": {"engine": "in-forward"},
    "paired": {"engine": "paired"},
    "touched": {"engine": "paired", "rows": "touched"},
    "stochastic": {"dtype": "bfloat16", "rounding": "stochastic"},
    "master": {"dtype": "bfloat16", "rounding": "master"},
    "small weights, plain": {"engine": "plain", "method": "mezo:law=small-weights"},
    "small weights": {"engine": "in-forward", "method": "mezo:law=small-weights"},
    "low rank, plain": {"engine": "plain", "method": "mezo:law=low-rank"},
    "low rank": {"engine": "in-forward", "method": "mezo:law=low-rank:n=2"},
    "batched": {"engine": "batched", "method": "mezo:law=low-rank:n=2", "points": 3},
    "own": {"engine": "engines:Copied"},  # the one of docs/own.md
}


USUAL = ("in-forward", "touched", "stochastic", "small weights, plain", "batched", "own")


@pytest.mark.parametrize("way", sampled(WAYS, USUAL.__contains__))
def test_an_interrupted_run_ends_as_an_uninterrupted_one(way, tmp_path):
    whole = train(options(tmp_path / "whole", **WAYS[way]))
    gone(Loop.of(options(tmp_path / "cut", **WAYS[way])), stop=4)
    assert train(options(tmp_path / "cut", **WAYS[way]))["test_loss"] == whole["test_loss"]
    assert torch.equal(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    base = Loop.of(options(tmp_path / "other", **WAYS[way])).context.language_model.model
    assert not torch.equal(weights(tmp_path / "whole"), _flat(base))  # planted: training moved the weights


def _flat(model):
    return torch.cat([v.flatten().float() for _, v in sorted(checkpoint.weights(model).items())])


def test_engines_train_alike_and_touched_rows_do_not(tmp_path):
    found = {}
    for way in ("plain", "in-forward", "paired", "touched"):
        train(options(tmp_path / way, **WAYS[way]))
        found[way] = weights(tmp_path / way)
    assert torch.equal(found["in-forward"], found["paired"])
    assert torch.allclose(found["plain"], found["paired"], atol=1e-5)
    assert not torch.allclose(found["touched"], found["paired"], atol=1e-5)


def test_an_engine_of_ones_own_trains_replays_and_is_named(tmp_path, capsys):
    """Neither it nor the in-forward engine leaves anything of a point."""
    for way in ("own", "in-forward"):
        train(options(tmp_path / way, **WAYS[way]))
    assert torch.equal(weights(tmp_path / "own"), weights(tmp_path / "in-forward"))
    assert 'engine = "engines:Copied"' in (tmp_path / "own/config.toml").read_text()
    assert main(["journal", "replay", str(tmp_path / "own")]) == 2
    assert "the engine of this journal, 'engines:Copied'" in capsys.readouterr().err
    assert main(["journal", "replay", str(tmp_path / "own"), "--engine", "engines:Copied"]) == 0
    assert main(["journal", "replay", str(tmp_path / "own"), "--engine", "plain"]) == 2
    assert "--engine is plain, and the journal is of engines:Copied" in capsys.readouterr().err


def test_the_function_of_an_engine_receives_its_options_and_how_to_round(tmp_path):
    name = "zobench.space:InForward:deferred=true"
    space = Loop.of(options(tmp_path / "a", engine=name, dtype="bfloat16", rounding="master")).stepper.space
    assert space.engine.deferred and space.reads == torch.bfloat16
    space = Loop.of(options(tmp_path / "b", engine=name, dtype="bfloat16", rounding="stochastic")).stepper.space
    assert space.rounding == "stochastic"


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("no_such_module:Engine", {}, "the module 'no_such_module' cannot be imported"),
        ("engines:Engine", {}, "the module 'engines' has no function 'Engine'"),
        ("builtins:dict", {}, "<class 'dict'> has no signature that Python can read: name a Python function"),
        ("engines:Net", {}, r"(?s)'engines:Net' makes Net\(.*which is no zobench\.space\.Engine"),
        ("engines:Copied:size=3", {}, r"'engines:Copied' does not take the options \['size'\]"),
        ("engines:Copied", {"points": 2}, "points is 2, but engine engines:Copied does not read it"),
        ("engines:Copied", {"dtype": "bfloat16", "rounding": "stochastic"}, "has rounding 'nearest'"),
        ("engines:Copied", {"dtype": "bfloat16", "rounding": "master"}, "asks for rounding 'nearest' and reads torch"),
        ("plain:size=3", {}, "unknown engine 'plain:size=3'. Did you mean 'plain'"),
    ],
)
def test_an_engine_of_ones_own_that_cannot_serve_is_refused_before_anything_is_loaded(name, changed, message):
    with pytest.raises(ValueError, match=message):
        check(TrainOptions(model="no-such-model", engine=name, **changed))


def test_the_batched_engine_trains_as_the_in_forward_one(tmp_path):
    found = {}
    for way in ("low rank", "batched", "low rank, plain"):
        train(options(tmp_path / way, **WAYS[way]))
        found[way] = weights(tmp_path / way)
    assert torch.allclose(found["batched"], found["low rank"], atol=1e-5)
    assert not torch.allclose(found["batched"], found["low rank, plain"], atol=1e-5)  # planted: another n


def test_a_dry_run_of_the_batched_engine_counts_the_activations_of_all_points(tmp_path, capsys):
    given = ["--train", "8", "--dev", "4", "--test", "4", "--batch", "2", "--max-tokens", "16", "--dry-run"]
    method = ["--method", "mezo:law=low-rank:n=4", "--engine", "batched", "--out", str(tmp_path / "none")]
    assert main(["train", *given, *method]) == 0
    assert "memory" in capsys.readouterr().out


@pytest.mark.parametrize(
    "way",
    ["in-forward", "stochastic", "master", "small weights, plain", "small weights", "low rank, plain", "batched"],
)
def test_a_journal_alone_rebuilds_the_weights(way, tmp_path, capsys):
    train(options(tmp_path / "run", **WAYS[way]))
    assert main(["journal", "replay", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(("way", "share"), [("small weights, plain", 0.5), ("small weights", 1.0)])
def test_a_step_is_compared_with_the_direction_that_was_masked_before_it(way, share, tmp_path):
    """At steps that are evaluated; the share that moved is one of all weights on the plain engine, and of those that
    were to move on the other.
    """
    train(options(tmp_path / "run", **WAYS[way]))
    rows = [json.loads(line) for line in (tmp_path / "run" / "rows.jsonl").read_text().splitlines()]
    measured = [row for row in rows if row["kind"] == "step" and "moved" in row]
    assert measured and all(share - 0.1 < row["moved"] < share + 0.01 and row["cosine"] > 0.98 for row in measured)


def test_a_journal_of_touched_rows_wants_its_data(tmp_path, capsys):
    train(options(tmp_path / "run", **WAYS["touched"]))
    assert main(["journal", "replay", str(tmp_path / "run")]) == 2
    assert "touched" in capsys.readouterr().err


def test_a_run_of_another_stream_is_neither_replayed_nor_continued(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "run"
    train(options(folder, steps=2))
    file = folder / "journal.bin"
    kept = read(file)
    file.unlink()
    old = Journal(file, {**kept.header, "stream": "SFC64 and torch 1"})
    for record in kept.records:
        old.append(record)
    old.close()
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["stream"] == kept.header["stream"] == streams.NAME
    with monkeypatch.context() as before_work:
        before_work.setattr(loading, "load", None)  # the model is not even loaded
        assert main(["journal", "replay", str(folder)]) == 2
        said = capsys.readouterr().err
        assert "numbers 'SFC64 and torch 1'" in said and "repeat its steps with that version" in said
        assert main(["journal", "show", str(folder)]) == 0
        assert "SFC64 and torch 1" in capsys.readouterr().out
    (folder / "rows.jsonl").unlink()
    with pytest.raises(JournalError, match=r"SFC64 and torch 1.*continue the run with that version.*--out"):
        train(options(folder, steps=2))


def test_what_cannot_be_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--engine in-forward"):
        Loop.of(options(tmp_path / "a", engine="plain", rounding="stochastic", dtype="bfloat16"))
    with pytest.raises(ValueError, match="float16"):
        Loop.of(options(tmp_path / "b", rounding="stochastic", dtype="float16"))
    with pytest.raises(ValueError, match="touched rows"):
        Loop.of(options(tmp_path / "c", rows="touched", objective="language-model"))
    with pytest.raises(ValueError, match=r"low rank, but the law is Gaussian.*law=low-rank"):
        Loop.of(options(tmp_path / "e", engine="batched"))
    low = {"engine": "batched", "method": "mezo:law=low-rank"}
    with pytest.raises(ValueError, match="points is 0"):
        Loop.of(options(tmp_path / "f", **low, points=0))
    with pytest.raises(ValueError, match="points is 4, but engine plain does not read it"):
        Loop.of(options(tmp_path / "g", engine="plain", points=4))
    with pytest.raises(ValueError, match="objective accuracy takes numbers out of tensors"):
        Loop.of(options(tmp_path / "h", **low, objective="accuracy"))
    with pytest.raises(ValueError, match="Did you mean"):
        Loop.of(options(tmp_path / "d", engine="inforward"))


def test_the_engine_is_chosen_by_size():
    small, large = torch.nn.Linear(4, 4), torch.nn.Linear(4000, 4000, device="meta")
    assert chosen_engine("auto", small) == "plain"
    assert chosen_engine("auto", large) == "in-forward"  # not on a CPU
    assert chosen_engine("paired", small) == "paired"


def test_the_space_is_the_one_asked_for(tmp_path):
    assert type(Loop.of(options(tmp_path / "a")).stepper.space) is ModuleSpace
    space = Loop.of(options(tmp_path / "b", dtype="bfloat16", rounding="master")).stepper.space
    assert isinstance(space, InForwardSpace) and space.reads == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in space.module.parameters())


def test_rounding_is_compared_by_way(tmp_path):
    given = ["--steps", "1", "--batch", "4", "--rates", "1e-6", "--epsilon", "1e-2", "--max-tokens", "64"]
    assert main(["rounding", *given, "--out", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    found = {row["rounding"]: row for row in rows if row["kind"] == "motion"}
    assert found["nearest"]["moved"] < found["stochastic"]["moved"] < 0.1 < found["float32 master"]["moved"]
    assert found["float32 master"]["cosine"] > 0.999 > found["stochastic"]["cosine"] > 0
    assert found["in-place"]["length"] > 10  # the way to the points and back moves more than the step


def test_frozen_weights_of_a_master_copy_are_held_as_they_are_read(tmp_path, monkeypatch):
    pytest.importorskip("peft")
    given = {"adapter": "lora", "engine": "in-forward", "lr": 1e-2, **WAYS["master"]}
    held = Loop.of(options(tmp_path / "other", **given)).context.language_model.model
    dtypes = {(p.requires_grad, p.dtype) for p in held.parameters()}
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
    found = train(options(tmp_path / "held", **given))
    monkeypatch.setattr(trainable, "hold_frozen", lambda *_: None)
    converted = train(options(tmp_path / "converted", **given))
    assert all(found[name] == converted[name] for name in ("dev_loss", "test_loss"))
