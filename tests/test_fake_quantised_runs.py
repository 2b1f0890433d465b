"""Whole runs of training for quantisation: calibrated, trained, resumed, replayed, exported, refused."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm.__main__ import main
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading
from llm.objective import calibration
from llm.options.train import TrainOptions
from llm.quantised import SCHEMES, Scheme, codes_of
from llm.quantised import model as models
from llm.quantised.smoothing import as_text
from llm.run import journal
from llm.run.context import prepare
from tests.interrupted import gone

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"steps": 3, "train": 40, "dev": 6, "test": 6, "max_tokens": 16, "batch": 2, "eval_every": 3, "lr": 1e-4}
FACTORS = ("*smoothing", "*clipping")


@pytest.fixture(autouse=True)
def few_examples(monkeypatch):
    monkeypatch.setattr(calibration, "EXAMPLES", 6)


def options(tmp_path, **changes):
    given = {"fake_quantize": "w4a4", **QUICK, "out": str(tmp_path / "run"), "baselines": False}
    return TrainOptions(**{**given, **changes})


def measured(tmp_path, model, **changes):
    """Loss and accuracy of dev and test of a model that is loaded anew."""
    context = prepare(options(tmp_path, model=str(tmp_path / model), fake_quantize=None, **changes))
    dev, test = (context.objective.measure(rows) for rows in (context.data.dev, context.data.test))
    return dev.loss, dev.accuracy, test.loss, test.accuracy


def bits(model):
    return {name: tensor.clone() for name, tensor in (*model.named_parameters(), *codes_of(model).items())}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("scheme", "engine", "changes"),
    [
        ("w8a8", "plain", {}),
        ("w4a8", "in-forward", {"trained": FACTORS, "lr": 1e-3}),
        ("w4a4", "paired", {"method": "mezo:n=2", "rule": "momentum", "select": "last"}),
        ("w2a16", "plain", {"smoothing": 0.0, "objective": "language-model"}),
    ],
)
def test_what_is_measured_is_what_is_exported_and_replays_to_the_bit(scheme, engine, changes, tmp_path, capsys):
    final = train(options(tmp_path, fake_quantize=scheme, engine=engine, **changes))
    reported = tuple(final[name] for name in ("dev_loss", "dev_accuracy", "test_loss", "test_accuracy"))
    objective = {"objective": changes.get("objective", "task")}
    assert measured(tmp_path, "run", **objective) == reported
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "codes"), "--format", "codes"]) == 0
    assert measured(tmp_path, "codes", **objective) == reported
    assert main(["journal", "replay", str(tmp_path / "run")]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    for layer in models.layers(loading.load(str(tmp_path / "run")).model).values():
        assert (layer.format.bits, layer.activations) == SCHEMES[scheme][1:]
        assert (layer.smoothing is None) == (changes.get("smoothing") == 0)


def test_trained_patterns_choose_weights_or_factors(tmp_path):
    started = loading.load("tiny-opt", quantize=Scheme.of("w4a4")).model.state_dict()
    for number, (trained, moved) in enumerate([((), {"weight", "bias"}), (FACTORS, {"log_smoothing", "log_clipping"})]):
        loop = Loop.of(options(tmp_path, trained=trained, out=str(tmp_path / str(number)), smoothing=0.0))
        gone(loop, stop=2)
        ended = loop.context.language_model.model.state_dict()
        assert {n.rpartition(".")[2] for n in started if not torch.equal(started[n], ended[n])} == moved


@pytest.mark.parametrize("journal", [True, False])
def test_a_killed_run_ends_as_the_whole_one(journal, tmp_path, monkeypatch):
    """With a journal nothing is calibrated again; without one the seed gives the same factors."""
    chosen = {"trained": FACTORS, "lr": 1e-3} if journal else {}
    train(options(tmp_path, out=str(tmp_path / "whole"), **chosen))
    broken = options(tmp_path, out=str(tmp_path / "broken"), journal=journal, checkpoint_every=1, **chosen)
    gone(Loop.of(broken), stop=2)
    if journal:
        monkeypatch.setattr("llm.run.context.calibrate_", lambda *_: pytest.fail("calibrated again"))
    train(broken)
    assert same(*(bits(loading.load(str(tmp_path / name / "model")).model) for name in ("whole", "broken")))


def test_the_header_tells_scheme_and_factors_and_refuses_others(tmp_path):
    gone(Loop.of(options(tmp_path)), stop=1)
    contents = journal.read_told(tmp_path / "run/journal.bin")
    said = contents.header["fake_quantised"]
    assert (said["scheme"], said["smoothing"]) == ("w4a4", 0.75)
    model = loading.load("tiny-opt", quantize=Scheme.of("w4a4")).model
    said["log_smoothing"] = as_text(model)  # factors of 1
    with pytest.raises(ValueError, match="does not have the weights this journal began with"):
        journal.rebuild(contents)


def test_calibration_reads_the_examples_that_the_seed_draws(tmp_path):
    def found(seed, **changes):
        model = prepare(options(tmp_path, seed=seed, train=40, **changes)).language_model.model
        return next(p for n, p in model.named_parameters() if n.endswith("fc2.log_smoothing")).clone()

    assert torch.equal(found(0), found(0, batch=8)) and not torch.equal(found(0), found(1))


def test_a_checkpoint_is_exported_with_the_factors_of_the_journal(tmp_path):
    gone(Loop.of(options(tmp_path, checkpoint_every=2)), stop=2)
    run = str(tmp_path / "run")
    for source in ("checkpoint", "journal"):
        to = str(tmp_path / source)
        assert main(["export", run, "--to", to, "--format", "codes", "--source", source]) == 0
    assert same(*(bits(loading.load(str(tmp_path / name)).model) for name in ("checkpoint", "journal")))


def test_a_dense_export_folds_smoothing_and_loads_in_transformers(tmp_path, capsys):
    train(options(tmp_path, fake_quantize="w4a16"))
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "dense")]) == 0
    made, info = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ids = torch.arange(24)[None]
    with torch.no_grad():
        kept = loading.load(str(tmp_path / "run/model")).model(ids).logits
        torch.testing.assert_close(made(ids).logits, kept, rtol=1e-4, atol=1e-4)
    train(options(tmp_path, out=str(tmp_path / "w4a4")))
    capsys.readouterr()
    assert main(["export", str(tmp_path / "w4a4"), "--to", str(tmp_path / "dense2")]) == 0
    assert "activations of these dense layers are not rounded" in "".join(capsys.readouterr())


def test_a_model_is_rounded_without_training(tmp_path, capsys):
    """evaluate and a run's zero-shot measure the same calibrated model."""
    asked = ["--fake-quantize", "w4a4", "--train", "40", "--dev", "6", "--test", "6", "--max-tokens", "16"]
    assert main(["evaluate", *asked, "--out", str(tmp_path / "evaluated")]) == 0
    final = train(options(tmp_path, method="zero-shot"))
    rows = map(json.loads, (tmp_path / "evaluated/rows.jsonl").read_text().splitlines())
    assert [row["test_loss"] for row in rows if row["kind"] == "measurement"] == [final["test_loss"]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fake_quantize": "w3a8"}, "unknown scheme of fake quantisation 'w3a8'"),
        ({"fake_quantize": "w3a8"}, "w4a4"),  # the list of schemes
        ({"smoothing": 1.5}, "smoothing is 1.5"),
        ({"fake_quantize": None, "smoothing": 0.5}, "no activation is rounded"),
        ({"quantize": "int4"}, "leave one out"),
        ({"adapter": "lora"}, "leave --adapter out"),
        ({"method": "adamw"}, "has no gradient"),
        ({"method": "hybrid"}, "has no gradient"),
        ({"method": "forward-gradient"}, "has no gradient"),
        ({"engine": "streamed"}, "--engine streamed does not hold"),
        ({"engine": "batched", "method": "mezo:law=low-rank"}, "--engine batched does not hold"),
        ({"rounding": "master"}, "leave --rounding out"),
        ({"rows": "touched"}, "leave --rows out"),
    ],
)
def test_what_cannot_be_trained_so_is_told_before_weights_are_read(changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_read", lambda *_: pytest.fail("the weights were read"))
    with pytest.raises(ValueError, match=message):
        Loop.of(options(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_models_of_codes_and_adapters_are_not_rounded_again(tmp_path):
    train(options(tmp_path))
    with pytest.raises(ValueError, match="is quantised already: leave --fake-quantize out"):
        Loop.of(options(tmp_path, model=str(tmp_path / "run/model"), out=str(tmp_path / "again")))
    train(options(tmp_path, fake_quantize=None, adapter="lora", lr=1e-2, out=str(tmp_path / "lora")))
    with pytest.raises(ValueError, match="is an adapter"):
        Loop.of(options(tmp_path, model=str(tmp_path / "lora/model"), out=str(tmp_path / "again")))
