"""Engine streamed: the bits of in-forward from weights on disk, each layer fetched once a step, nothing lost."""

import os
import shutil
import time
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import pytest
import tiny_models
import torch
from torch import nn
from torch.nn import functional

from llm import tasks
from llm.bench import random_model
from llm.bench.memory import ANONYMOUS, memory_now
from llm.dry_run import dry_run
from llm.loop.train import train
from llm.model import loading, streaming, working_copy
from llm.model.mapped import MappedFile, blocks_of
from llm.options.train import TrainOptions
from llm.run.context import prepare
from llm.run.journal import rebuild
from llm.steppers.zeroth_order import ZerothOrderStepper
from zobench import ModuleSpace, derive, methods
from zobench.groups import Groups
from zobench.rule import SGD
from zobench.run.journal import read
from zobench.space import InForward, Streamed, streamed
from zobench.space.slots import fetcher

IDS = torch.arange(24).view(2, 12) * 11 % tiny_models.VOCABULARY


@pytest.fixture
def folder(tmp_path):
    def saved(kind, **changes):
        loading.save(tiny_models.language_model(kind, **changes), tmp_path / kind)
        return tmp_path / kind

    return saved


def losses_of(model):
    def losses():
        with torch.no_grad():
            logits = model(input_ids=IDS, use_cache=False).logits.float()
        return functional.cross_entropy(logits[:, :-1].transpose(1, 2), IDS[:, 1:], reduction="none").mean(1)

    return losses


def falling(step):
    return 1e-2 / (1 + step)


def stepped(model, engine, steps, rate=falling, method="mezo", **options):
    """The records of steps with decay and a rate that falls, and the weights after them."""
    rule = SGD(rate, weight_decay=0.1, groups=Groups({next(iter(dict(model.named_parameters()))): 3.0}))
    stepper = ZerothOrderStepper(model, methods.make(method), rule, engine, **options)
    records = [stepper.step(derive("streamed", i), losses_of(model)).record for i in range(steps)]
    stepper.settle()
    return records, {name: p.detach().clone() for name, p in model.named_parameters()}


def require_equal(one, other):
    assert [(r.losses, r.checksum) for r in one[0]] == [(r.losses, r.checksum) for r in other[0]]
    assert one[1].keys() == other[1].keys()
    assert all(torch.equal(one[1][name], other[1][name]) for name in one[1])


@pytest.mark.parametrize(
    ("kind", "steps", "changes"),
    [
        ("opt", 50, {"num_hidden_layers": 5}),
        ("llama", 5, {}),
        ("llama", 5, {"tie_word_embeddings": True}),
        ("qwen2", 5, {}),
        ("qwen3", 5, {}),
        ("gpt2", 5, {}),
        ("roberta", 2, {}),
    ],
)
def test_losses_and_weights_are_those_of_in_forward_to_the_bit(folder, tmp_path, kind, steps, changes):
    place = str(folder(kind, **changes))
    held, mapped = loading.load(place).model, streaming.load(place, beside=tmp_path, evict=True).model
    assert all(torch.equal(a, b) for a, b in zip(held.buffers(), mapped.buffers(), strict=True))
    require_equal(stepped(held, "in-forward", steps), stepped(mapped, "streamed", steps))


def test_a_step_at_the_rate_of_the_next_would_be_seen(folder):
    place = str(folder("opt"))
    right = stepped(loading.load(place).model, "in-forward", 3)
    late = stepped(streaming.load(place).model, "streamed", 3, lambda step: falling(step + 1))
    assert right[0][1].losses != late[0][1].losses  # what ZO2's deferred update does


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_bfloat16_is_that_of_in_forward_to_the_bit(folder, rounding):
    place = str(folder("opt"))
    models = [load(place, dtype="bfloat16").model for load in (loading.load, streaming.load)]
    require_equal(
        stepped(models[0], "in-forward", 3, rounding=rounding), stepped(models[1], "streamed", 3, rounding=rounding)
    )


@pytest.mark.parametrize("method", ["forward:n=2", "mezo:n=2"])
def test_plans_of_several_lines_and_of_the_base_point(folder, method):
    place, (name, _, rest) = str(folder("opt")), method.partition(":")
    n = int(rest.removeprefix("n="))
    found = []
    for model, engine in ((loading.load(place).model, "in-forward"), (streaming.load(place).model, "streamed")):
        stepper = ZerothOrderStepper(model, methods.make(name, n=n), SGD(falling, weight_decay=0.1), engine)
        records = [stepper.step(derive("lines", i), losses_of(model)).record for i in range(4)]
        stepper.settle()
        found.append((records, dict(model.named_parameters())))
    require_equal(*found)


class Layers(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.table = nn.Embedding(10, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(count)])

    def forward(self, ids):
        x = self.table(ids)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


class Recorder:
    def __init__(self):
        self.events, self.inside, self.most = [], set(), 0

    def fetch(self, block):
        self.events.append(block)
        self.inside.add(block)
        self.most = max(self.most, len(self.inside))

    def release(self, block):
        self.inside.discard(block)


def test_each_layer_is_fetched_once_a_step_and_three_are_inside():
    module, recorder = Layers(6).eval(), Recorder()
    space = ModuleSpace(module, Streamed(residence=recorder))
    mezo, ids = methods.make("mezo"), torch.arange(6)
    for step in range(3):
        plan = mezo.ask(derive("fetch", step), ())
        told = mezo.tell(plan, space.losses(lambda: module(ids).square().mean(), plan), ())
        space.step_(told.gradient, -1e-3)
    fetcher().submit(int).result()  # after all advice before
    assert recorder.events == [1, 2, 3, 4, 5, 0] * 3 and recorder.most <= streamed.KEPT
    space.settle_()
    fetcher().submit(int).result()
    assert recorder.events[18:] == [1, 2, 3, 4, 5, 0]  # what was pending, layer by layer


def is_cached(file):
    """Whether the last byte of a file is in the page cache."""
    try:
        return os.preadv(file._descriptor, [bytearray(1)], file.size - 1, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False


def goes(file):
    """Whether a file leaves the page cache. What is mapped or not yet written does not; of the rest the system may keep
    a page that it looks at in this moment, so that it is asked again.
    """
    for _ in range(50):
        if not is_cached(file):
            return True
        time.sleep(0.02)
        os.posix_fadvise(file._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    return False


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="Linux tells what is in the page cache")
def test_a_layer_is_read_when_fetched_and_gone_with_what_was_written_when_the_next_is(folder, tmp_path, monkeypatch):
    model = streaming.load(str(folder("opt", num_hidden_layers=5)), beside=tmp_path, evict=True).model
    blocks = blocks_of(model)
    first, tensor = blocks.files[0], next(iter(blocks.files[0].tensors.values()))
    if not goes(first):
        pytest.skip("this file system is in memory")
    dropped, drop = [], MappedFile.drop
    monkeypatch.setattr(MappedFile, "drop", lambda file: (dropped.append(file), drop(file)))
    blocks.fetch(0)
    assert is_cached(first) and is_cached(blocks.rest)
    tensor.fill_(2.5)
    blocks.release(0)
    assert not dropped
    blocks.fetch(1)
    assert dropped == [first] and goes(first) and is_cached(blocks.files[1])
    assert bool((tensor == 2.5).all())
    blocks.release(0)
    blocks.release(1)
    assert dropped == [first, first] and goes(first)  # also in a pass that fetches nothing
    blocks.evict = False
    blocks.fetch(2)
    blocks.release(2)
    blocks.fetch(3)
    assert is_cached(blocks.files[2])


def test_a_module_without_layers_is_refused():
    with pytest.raises(ValueError, match=r"Linear has no list of layers .* give --engine in-forward"):
        ModuleSpace(nn.Linear(2, 2), Streamed())
    ModuleSpace(nn.Linear(2, 2), InForward())


def options(place, out, **changes):
    usual = TrainOptions(model=str(place), engine="streamed", steps=12, eval_every=6, batch=4, train=12, dev=6, test=6)
    usual = replace(usual, lr=1e-3, schedule="cosine", warmup=2, weight_decay=0.1, checkpoint_every=5, out=str(out))
    return replace(usual, baselines=False, **changes)


def contents_of(place):
    return {f.name: (blake2b(f.read_bytes()).hexdigest(), f.stat().st_mtime_ns) for f in Path(place).iterdir()}


def test_a_run_ends_as_in_forward_and_leaves_the_folder_of_the_model_as_it_was(tmp_path):
    place = tmp_path / "model"
    shutil.copytree(loading.TINY_OPT, place)
    before = contents_of(place)
    finals = [train(options(place, tmp_path / engine, engine=engine)) for engine in ("in-forward", "streamed")]
    names = ("fingerprint", "test_loss", "dev_loss", "selected_step")
    assert [finals[0][name] for name in names] == [finals[1][name] for name in names]
    journals = [read(tmp_path / engine / "journal.bin") for engine in ("in-forward", "streamed")]
    assert [r.losses for r in journals[0].records] == [r.losses for r in journals[1].records]
    weights = [(tmp_path / e / "model" / "model.safetensors").read_bytes() for e in ("in-forward", "streamed")]
    assert weights[0] == weights[1] and contents_of(place) == before
    assert not list(tmp_path.rglob(".streamed-*"))
    rebuilt = rebuild(journals[1], finals[1]["selected_step"])
    assert blocks_of(rebuilt.model) is not None
    saved = loading.load(str(tmp_path / "streamed" / "model")).model
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), rebuilt.model.parameters(), strict=True))


@pytest.mark.parametrize("entries", [31, 46])
def test_an_interrupt_while_layers_are_written_loses_nothing(tmp_path, monkeypatch, entries):
    whole = train(options("tiny-opt", tmp_path / "whole", save=False))
    count, enter = [0], streamed.Stream.enter

    def stopped(self, k, *others):
        count[0] += 1
        if count[0] == entries:
            raise KeyboardInterrupt
        enter(self, k, *others)

    cut = options("tiny-opt", tmp_path / "cut", save=False)
    with monkeypatch.context() as patched:
        patched.setattr(streamed.Stream, "enter", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(cut)
    assert 0 < len(read(tmp_path / "cut" / "journal.bin").records) < 12
    resumed = train(cut)
    assert resumed["fingerprint"] == whole["fingerprint"] and resumed["test_loss"] == whole["test_loss"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="anonymous memory is told by Linux only")
def test_the_weights_are_not_in_memory(tmp_path):
    random_model.write(tmp_path / "model", "opt-10m", "float32", 0)
    (before,) = memory_now(ANONYMOUS)
    model = streaming.load(str(tmp_path / "model"), beside=tmp_path).model
    assert memory_now(ANONYMOUS)[0] - before < blocks_of(model).size / 4
    assert os.listdir(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"adapter": "lora:r=2"}, "trains the weights of the model themselves"),
        ({"method": "adamw"}, "adamw needs gradients of them in memory"),
        ({"method": "hybrid"}, "hybrid needs gradients of them in memory"),
        ({"model": "smollm2-135m-instruct.gguf"}, "no such file"),
        ({"model": "somebody/model"}, r"on the hub: .* \(`hf download somebody/model --local-dir FOLDER`\)"),
        ({"model": "adapter"}, r"adapter is an adapter, .* `python -m llm export adapter --merge --to FOLDER`"),
    ],
)
def test_what_cannot_be_streamed_is_refused_before_anything_is_read(tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    monkeypatch.setattr(tasks, "find", lambda name: pytest.fail("data was read"))
    with pytest.raises(ValueError, match=said):
        prepare(replace(options("tiny-opt", tmp_path / "out"), **changes))
    assert not (tmp_path / "out").exists()


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=2**20)
    monkeypatch.setattr(working_copy.shutil, "disk_usage", lambda path: full)
    with pytest.raises(ValueError, match=r"working copy of the weights takes .* GiB are free below"):
        streaming.load("tiny-opt", beside=tmp_path)
    assert not os.listdir(tmp_path)


def test_the_dry_run_tells_blocks_and_twice_the_disk(tmp_path, capsys):
    dry_run.run(options("tiny-opt", tmp_path / "out"))
    said = capsys.readouterr().out
    assert "3 of 4 blocks" in said and "on disk twice" in said and "working copy of the weights 4.1" in said
    assert not os.listdir(tmp_path)
