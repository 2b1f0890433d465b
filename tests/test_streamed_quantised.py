"""Engine streamed on quantised models: codes and scales on disk, the bits of in-forward."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_models
import torch
from test_streamed import IDS, Layers, Recorder, contents_of, losses_of, options

from llm.__main__ import main
from llm.bench import random_model
from llm.bench.memory import ANONYMOUS, Peak, memory_now
from llm.cost.streamed import in_memory
from llm.dry_run import dry_run
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading, streaming
from llm.model.mapped import blocks_of
from llm.model.trainable import select
from llm.quantised import Choice, as_exported, codes_of, parse, quantise_, scale_names
from llm.quantised import model as models
from llm.run.context import prepare
from llm.steppers.zeroth_order import ZerothOrderStepper
from tests import gguf_files
from tests.interrupted import gone
from zobench import ModuleSpace, derive, methods
from zobench.rule import SGD
from zobench.run.journal import read
from zobench.space import Streamed
from zobench.space.slots import fetcher

pytestmark = pytest.mark.usefixtures("one_thread")


def bits(model):
    return {n: t.detach().clone() for n, t in (*model.named_parameters(), *codes_of(model).items())}


def stepped(model, engine, trained, steps=4):
    select(model, trained)
    stepper = ZerothOrderStepper(model, methods.make("mezo"), SGD(1e-2, weight_decay=0.1), engine)
    records = [stepper.step(derive("codes", i), losses_of(model)).record for i in range(steps)]
    stepper.settle()
    return [(r.losses, r.checksum) for r in records], bits(model)


def require_equal(held, mapped, trained=()):
    before = bits(mapped)
    assert {name: t.shape for name, t in before.items()} == {name: t.shape for name, t in bits(held).items()}
    one, other = stepped(held, "in-forward", trained), stepped(mapped, "streamed", trained)
    assert one[0] == other[0]
    assert all(torch.equal(one[1][name].float(), other[1][name].float()) for name in one[1])
    moved = {name.rpartition(".")[2] for name, t in before.items() if not torch.equal(t, other[1][name])}
    assert moved == {pattern.rpartition(".")[2] for pattern in trained or ("*.scales",)}


@pytest.mark.parametrize(
    ("kind", "format", "trained"),
    [
        ("llama", "int4", ()),
        ("opt", "int8", ("*.scales", "*layer_norm.bias")),
        ("qwen2", "int2-asymmetric", ("*.scales", "*.zeros")),
        ("llama", "int4-asymmetric", ("*.zeros",)),
    ],
)
def test_losses_and_scales_are_those_of_in_forward_to_the_bit(tmp_path, kind, format, trained):
    loading.save(tiny_models.language_model(kind, num_hidden_layers=5), tmp_path / kind)
    choice, place = Choice(format, 4), str(tmp_path / kind)
    mapped = streaming.load(place, beside=tmp_path, evict=True, quantize=choice).model
    assert len(blocks_of(mapped).files) == 5 and os.listdir(tmp_path) == [kind]
    require_equal(loading.load(place, quantize=choice).model, mapped, trained)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_folder_of_codes_is_read_as_it_is(tmp_path, dtype):
    made = tiny_models.language_model("llama")
    quantise_(made.model, parse("int4", 8))
    loading.save(made, tmp_path / "codes")
    before, place = contents_of(tmp_path / "codes"), str(tmp_path / "codes")
    require_equal(loading.load(place, dtype=dtype).model, streaming.load(place, dtype=dtype, beside=tmp_path).model)
    assert contents_of(tmp_path / "codes") == before


def test_an_embedding_and_a_head_that_share_codes_share_them_on_disk(tmp_path):
    gguf_files.write(tmp_path / "tiny.gguf")
    loading.save(loading.load(str(tmp_path / "tiny.gguf"), quantize=Choice("gguf")), tmp_path / "codes")
    mapped = streaming.load(str(tmp_path / "codes"), beside=tmp_path).model
    shared = {id(layer.codes): name for name, layer in models.layers(mapped).items()}
    assert len(shared) == len(models.layers(mapped)) - 1
    require_equal(loading.load(str(tmp_path / "codes")).model, mapped)


def test_a_mutant_with_another_code_would_be_seen(tmp_path):
    loading.save(tiny_models.language_model("llama"), tmp_path / "model")
    first, second = (streaming.load(str(tmp_path / "model"), quantize=Choice("int4", 4)).model for _ in range(2))
    layer = next(iter(models.layers(second).values()))
    layer.codes[0, 0, 0] ^= 1
    assert stepped(first, "streamed", ())[0] != stepped(second, "streamed", ())[0]


def quantised(place, out, **changes):
    return options(
        place, out, **{"quantize": "int4", "steps": 4, "eval_every": 2, "clip": 100.0, "lr": 1e-4, **changes}
    )


@pytest.mark.parametrize("kept", [False, True])
def test_a_run_ends_as_in_forward_resumes_and_replays(tmp_path, kept, capsys):
    """From a dense folder that is quantised on loading, and from a folder of codes."""
    place, changes = tmp_path / "model", {}
    shutil.copytree(loading.TINY_OPT, place)
    if kept:
        shutil.rmtree(place)
        loading.save(loading.load("tiny-opt", quantize=Choice("int4")), place)
        changes = {"quantize": None}
    before = contents_of(place)
    whole, mapped = (quantised(place, tmp_path / e, engine=e, **changes) for e in ("in-forward", "streamed"))
    gone(Loop.of(mapped), stop=3)
    assert len(read(tmp_path / "streamed/journal.bin").records) == 3
    finals = [train(whole), train(mapped)]
    names = ("fingerprint", "test_loss", "dev_loss", "selected_step")
    assert [finals[0][name] for name in names] == [finals[1][name] for name in names]
    files = [(tmp_path / e / "model/quantised.safetensors").read_bytes() for e in ("in-forward", "streamed")]
    assert files[0] == files[1] and contents_of(place) == before
    assert main(["journal", "replay", str(tmp_path / "streamed")]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    tuned = quantised(tmp_path / "streamed/model", tmp_path / "again", engine="in-forward", quantize=None)
    context = prepare(tuned)
    assert context.objective.measure(context.data.test).loss == finals[1]["test_loss"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is told by Linux only")
def test_neither_dense_weights_nor_codes_are_in_memory_at_once(tmp_path):
    random_model.write(tmp_path / "model", "opt-10m", "float32", 0)
    size = sum(file.stat().st_size for file in (tmp_path / "model").glob("*.safetensors"))
    before = memory_now(ANONYMOUS)[0]
    with Peak(ANONYMOUS) as peak:
        model = streaming.load(str(tmp_path / "model"), beside=tmp_path, quantize=Choice("int4")).model
        select(model, ())
    assert peak.highest[0] - before < size / 4
    blocks = blocks_of(model)
    assert sum(in_memory(model).values()) < blocks.size < size
    assert blocks.size == pytest.approx(models.planned_bytes(model, wide=True), rel=0.01)
    blank = loading.skeleton(str(tmp_path / "model")).model
    assert in_memory(blank, parse("int4")) == in_memory(model)


def test_the_dry_run_tells_what_codes_take(tmp_path, capsys):
    loading.save(loading.load("tiny-opt", quantize=Choice("int4")), tmp_path / "codes")
    said = []
    for place, choice in (("tiny-opt", "int4"), (tmp_path / "codes", None)):
        dry_run.run(quantised(place, tmp_path / "out", quantize=choice))
        said.append(next(line for line in capsys.readouterr().out.splitlines() if "of a working copy" in line))
    (_, copy), (codes, same) = (re.findall(r"([\d.]+) [KM]iB", line) for line in said)
    assert copy == same and float(codes) < float(copy)
    model = streaming.load("tiny-opt", quantize=Choice("int4")).model
    assert float(copy) == pytest.approx(blocks_of(model).size / 2**20, rel=0.02)


def test_measuring_as_exported_holds_no_copy_of_the_scales(tmp_path):
    model = tiny_models.model("llama")
    quantise_(model, parse("int4", 4))
    select(model, ())
    with torch.no_grad():
        for name in scale_names(model):
            model.get_parameter(name).mul_(1.0001)
        trained = bits(model)
        with as_exported(model):
            seen = model(input_ids=IDS).logits
            assert all(torch.equal(t, bits(model)[name]) for name, t in trained.items())
        assert not torch.equal(model(input_ids=IDS).logits, seen)
        models.round_(model)
        assert torch.equal(model(input_ids=IDS).logits, seen)


def test_a_rule_that_writes_in_a_sweep_of_its_own_lets_every_layer_go():
    module, recorder = Layers(6).eval(), Recorder()
    space = ModuleSpace(module, Streamed(residence=recorder))
    gradient = methods.make("mezo")
    plan = gradient.ask(derive("sweep", 0), ())
    told = gradient.tell(plan, space.losses(lambda: module(torch.arange(6)).square().mean(), plan), ())
    space.update_((told.gradient,), lambda block, x, drawn: drawn[0], -1e-3)
    fetcher().submit(int).result()
    assert recorder.inside == {0}  # which the next forward reads first


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "code-search", "clip": None}, "searches the codes of a model in memory: leave --engine out"),
        ({"group": 96}, "which groups of 96 do not divide"),
        ({"adapter": "lora:r=2"}, "trains the weights of the model themselves"),
    ],
)
def test_what_cannot_be_streamed_is_refused(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        prepare(replace(quantised("tiny-opt", tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()
