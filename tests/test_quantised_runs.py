"""Whole runs on quantised models: trained, resumed, replayed, exported, adapted."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from llm.__main__ import main
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading
from llm.options.train import TrainOptions
from llm.quantised import Choice, codes_of, is_quantised
from llm.quantised import model as models
from llm.run import journal
from llm.run.context import prepare
from tests import gguf_files
from tests.interrupted import gone
from zobench.run.journal import read

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"steps": 4, "train": 40, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 2, "lr": 1e-4}


def options(tmp_path, **changes):
    given = {"quantize": "int4", **QUICK, "out": str(tmp_path / "run"), "baselines": False, "clip": 100.0}
    return TrainOptions(**{**given, **changes})


def loss_of(tmp_path, model, quantize=None):
    """The loss of test of a model that is loaded anew."""
    context = prepare(options(tmp_path, model=str(tmp_path / model), quantize=quantize))
    return context.objective.measure(context.data.test).loss


def bits(model):
    return {name: tensor.clone() for name, tensor in (*model.named_parameters(), *codes_of(model).items())}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name].float(), other[name].float()) for name in one)


@pytest.mark.parametrize(
    ("quantize", "engine", "changes"),
    [
        ("int4", "plain", {}),
        ("int2-asymmetric", "paired", {"trained": ("*.scales", "*.zeros", "*layer_norm.bias")}),
        ("int8", "in-forward", {"method": "mezo:n=2", "rule": "momentum", "select": "last"}),
    ],
)
def test_scales_move_codes_stay_and_the_run_replays_to_the_bit(quantize, engine, changes, tmp_path, capsys):
    chosen = options(tmp_path, quantize=quantize, engine=engine, **changes)
    final = train(chosen)
    before = loading.load("tiny-opt", quantize=Choice(quantize)).model
    after = loading.load(str(tmp_path / "run/model")).model
    there, here = bits(before), bits(after)
    moved = {name.rpartition(".")[2] for name in there if not torch.equal(there[name], here[name])}
    assert moved == ({"scales", "zeros", "bias"} if "zeros" in str(changes) else {"scales"})
    assert all(torch.equal(there[name], here[name]) for name in there if name.endswith(".codes"))
    scales = [(there[name], here[name]) for name in there if name.endswith(".scales")]
    assert all(torch.equal(one.sign(), other.sign()) for one, other in scales)
    header = read(tmp_path / "run/journal.bin").header
    assert header["quantised"] == {"name": quantize, "group": 32} and len(header["codes"]) == 32
    assert main(["journal", "replay", str(tmp_path / "run")]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    assert loss_of(tmp_path, "run/model") == final["test_loss"]


@pytest.mark.parametrize("engine", ["plain", "paired"])
def test_a_killed_run_ends_as_the_whole_one(engine, tmp_path):
    whole = options(tmp_path, engine=engine, out=str(tmp_path / "whole"))
    train(whole)
    broken = options(tmp_path, engine=engine, out=str(tmp_path / "broken"))
    gone(Loop.of(broken), stop=3)
    train(broken)
    models_ = [loading.load(str(tmp_path / name / "model")).model for name in ("whole", "broken")]
    assert same(*map(bits, models_))


def test_other_codes_are_refused_by_a_journal(tmp_path, monkeypatch):
    train(options(tmp_path))
    usual = loading.load

    def other(*args, **named):
        loaded = usual(*args, **named)
        if is_quantised(loaded.model):
            next(iter(models.layers(loaded.model).values())).codes[0, 0, 0] ^= 1
        return loaded

    monkeypatch.setattr(loading, "load", other)
    with pytest.raises(ValueError, match="does not have the weights this journal began with"):
        journal.rebuild(journal.read_told(tmp_path / "run/journal.bin"))


def test_an_export_loads_in_transformers_and_measures_as_the_run(tmp_path):
    final = train(options(tmp_path))
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "dense")]) == 0
    made, info = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    after = loading.load(str(tmp_path / "run/model")).model
    for name, layer in models.layers(after).items():
        with torch.no_grad():
            assert torch.equal(made.get_submodule(name).weight, layer.weight)
    assert loss_of(tmp_path, "dense") == pytest.approx(final["test_loss"], rel=1e-5)


def test_a_gguf_is_tuned_on_its_own_codes_and_written_back(tmp_path, capsys):
    file = tmp_path / "tiny.gguf"
    gguf_files.write(file)
    final = train(options(tmp_path, model=str(file), quantize="gguf", lr=1e-5))
    assert main(["journal", "replay", str(tmp_path / "run")]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "out"), "--format", "gguf"]) == 0
    begun = loading.load(str(file), quantize=Choice("gguf")).model
    ended = loading.load(str(tmp_path / "out/model.gguf"), quantize=Choice("gguf")).model
    assert same(bits(loading.load(str(tmp_path / "run/model")).model), bits(ended))
    assert same(codes_of(begun), codes_of(ended)) and not same(bits(begun), bits(ended))
    assert loss_of(tmp_path, "out/model.gguf", "gguf") == final["test_loss"]
    plain = loading.load(str(tmp_path / "out/model.gguf")).model  # as transformers reads it
    ids = torch.arange(24)[None]
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, ended(ids).logits)


def test_lora_on_codes_is_trained_saved_merged_and_resumed(tmp_path, capsys):
    final = train(options(tmp_path, adapter="lora", lr=1e-2))
    assert json.loads((tmp_path / "run/model/quantised_base.json").read_text()) == {"name": "int4", "group": 32}
    loaded = loading.load(str(tmp_path / "run/model"))
    base = loading.load("tiny-opt", quantize=Choice("int4")).model
    inside = {n.replace("base_model.model.", "").replace(".base_layer", ""): t for n, t in bits(loaded.model).items()}
    assert all(torch.equal(inside[name], t) for name, t in bits(base).items())
    assert loss_of(tmp_path, "run/model") == pytest.approx(final["test_loss"], rel=1e-6)
    assert main(["journal", "replay", str(tmp_path / "run")]) == 0
    assert main(["export", str(tmp_path / "run"), "--to", str(tmp_path / "merged"), "--merge"]) == 0
    merged = loading.load(str(tmp_path / "merged"))
    ids = torch.arange(20)[None]
    with torch.no_grad():
        wanted = loaded.model(input_ids=ids).logits
        torch.testing.assert_close(merged.model(ids).logits, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantize": "int3"}, "unknown format of quantised weights 'int3'"),
        ({"group": 6}, "give a multiple of 4"),
        ({"quantize": None, "group": 64}, "nothing is quantised"),
        ({"quantize": "gguf", "group": 64}, "leave --group out"),
        ({"quantize": "gguf"}, "keeps the codes of a GGUF file"),
        ({"group": 96}, "has 128 weights, which groups of 96 do not divide: give --group 128"),
        ({"rounding": "master"}, "leave --rounding out"),
        ({"rows": "touched"}, "leave --rows out"),
    ],
)
def test_what_cannot_be_quantised_is_told_before_weights_are_read(changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_read", lambda *_: pytest.fail("the weights were read"))
    with pytest.raises(ValueError, match=message):
        Loop.of(options(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def searching(tmp_path, **changes):
    return options(tmp_path, **{"method": "code-search:size=200000", "clip": None, "select": "last", **changes})


@pytest.mark.parametrize("quantize", ["int8", "int4", "int2-asymmetric"])
def test_a_search_moves_codes_by_one_and_is_replayed_and_exported(quantize, tmp_path, capsys):
    final = train(searching(tmp_path, quantize=quantize))
    before, after = (
        loading.load("tiny-opt", quantize=Choice(quantize)).model,
        loading.load(str(tmp_path / "run/model")).model,
    )
    moved = {name for name, tensor in bits(before).items() if not torch.equal(tensor, bits(after)[name])}
    assert moved and all(name.endswith(".codes") for name in moved)
    for name, layer in models.layers(before).items():
        there, here = (each.format.unpack(each.codes).int() for each in (layer, models.layers(after)[name]))
        assert int((there - here).abs().max()) <= 4  # one a step
    records = read(tmp_path / "run/journal.bin").records
    assert [record.checksum for record in records] == [record.losses.index(min(record.losses)) for record in records]
    assert main(["journal", "replay", str(tmp_path / "run")]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    assert loss_of(tmp_path, "run/model") == final["test_loss"]


def test_a_killed_search_ends_as_the_whole_one(tmp_path):
    train(searching(tmp_path, out=str(tmp_path / "whole"), select="best"))
    broken = searching(tmp_path, out=str(tmp_path / "broken"), select="best", checkpoint_every=2)
    gone(Loop.of(broken), stop=3)
    train(broken)
    assert same(*(bits(loading.load(str(tmp_path / name / "model")).model) for name in ("whole", "broken")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"quantize": None}, "changes the codes of a quantised model"),
        ({"adapter": "lora"}, "leave --adapter out"),
        ({"clip": 3.0}, "leave --clip out"),
        ({"method": "code-search:size=0"}, "size is 0"),
    ],
)
def test_a_search_without_codes_is_told_before_weights_are_read(changes, message, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_read", lambda *_: pytest.fail("the weights were read"))
    with pytest.raises(ValueError, match=message):
        Loop.of(searching(tmp_path, **changes))
