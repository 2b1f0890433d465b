"""Layers in slots of a device: the bits of in-forward, copies whose order is checked, nothing left behind.

No GPU is here: the device is the CPU, with copies as on another one. `Late` runs each copy only when somebody waits for
it, and fills its target with NaN until then: the latest that a stream may be.
"""

import threading

import pytest
import test_streamed
import tiny_models
import torch
from test_streamed import IDS, falling, losses_of, options, require_equal, stepped
from test_streamed_quantised import quantised
from test_streamed_quantised import require_equal as require_equal_scales
from torch import nn

from llm.dry_run import dry_run
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading, streaming
from llm.model.mapped import blocks_of
from llm.model.trainable import select
from llm.quantised import Choice
from llm.steppers.zeroth_order import ZerothOrderStepper
from tests.interrupted import gone
from zobench import ModuleSpace, derive, methods
from zobench.law import LAWS
from zobench.random import fused
from zobench.rule import SGD
from zobench.space import Streamed, slots
from zobench.space.copies import Copies, CudaCopies
from zobench.space.slots import KEPT, Slots
from zobench.space.streamed import layers_of

CPU = torch.device("cpu")


class Late(Copies):
    def __init__(self, device):
        super().__init__(device)
        self.lock, self.waiting, self.begun = threading.RLock(), [], []

    def mark(self):
        return _Mark(self)

    def begin(self, pairs, after):
        mark = _Mark(self)
        with self.lock:
            self.begun.append((pairs, list(after)))
            for target, _ in pairs:
                target.view(torch.uint8).fill_(255) if target.dtype != torch.uint8 else target.fill_(255)
            self.waiting.append((mark, pairs))
        return mark

    def hold(self, mark):
        mark.synchronize()


class _Mark:
    def __init__(self, copies):
        self.copies = copies

    def synchronize(self):
        with self.copies.lock:
            while any(mark is self for mark, _ in self.copies.waiting):
                for target, source in self.copies.waiting.pop(0)[1]:
                    target.copy_(source)


@pytest.fixture(autouse=True)
def on_a_device(monkeypatch):
    """Streamed models are in slots of the CPU."""
    monkeypatch.setattr(streaming, "in_slots", lambda device: True)
    monkeypatch.setattr(slots, "copies_for", Late)


@pytest.fixture
def folder(tmp_path):
    def saved(kind, **changes):
        loading.save(tiny_models.language_model(kind, **changes), tmp_path / kind)
        return str(tmp_path / kind)

    return saved


def slots_of(model):
    return blocks_of(model).slots


def require_on_the_host(model):
    """All layers are in the files of the working copy, and nothing is under way."""
    own = {t.data_ptr() for file in blocks_of(model).all for t in file.tensors.values()}
    layers = [p for layer in layers_of(model) for p in layer.parameters()]
    assert layers and all(p.data_ptr() in own for p in layers)
    assert all(slot.block is None and not slot.users for slot in slots_of(model)._slots)


@pytest.mark.parametrize(
    ("kind", "steps", "changes"),
    [
        ("opt", 50, {"num_hidden_layers": 5}),
        ("opt", 3, {"num_hidden_layers": 1}),
        ("llama", 5, {"tie_word_embeddings": True}),
        ("gpt2", 5, {}),
    ],
)
def test_losses_and_weights_are_those_of_in_forward_to_the_bit(folder, tmp_path, kind, steps, changes):
    place = folder(kind, **changes)
    held, mapped = loading.load(place).model, streaming.load(place, beside=tmp_path, evict=True).model
    require_equal(stepped(held, "in-forward", steps), stepped(mapped, "streamed", steps))
    require_on_the_host(mapped)
    with torch.no_grad():
        assert torch.equal(held(input_ids=IDS).logits, mapped(input_ids=IDS).logits)
    require_on_the_host(mapped)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_bfloat16_is_that_of_in_forward_to_the_bit(folder, rounding):
    place = folder("opt")
    held, mapped = (load(place, dtype="bfloat16").model for load in (loading.load, streaming.load))
    require_equal(stepped(held, "in-forward", 3, rounding=rounding), stepped(mapped, "streamed", 3, rounding=rounding))


@pytest.mark.parametrize(
    "method", ["forward:n=3", "mezo:n=2", "mezo:law=small-weights", "sparse-mezo", "forward-gradient"]
)
def test_other_plans_and_laws(folder, method):
    place, found = folder("opt"), []
    for load, engine in ((loading.load, "in-forward"), (streaming.load, "streamed")):
        model = load(place).model
        name, _, rest = method.partition(":")
        estimator = methods.make(name, **methods_options(rest))
        stepper = ZerothOrderStepper(model, estimator, SGD(falling, weight_decay=0.1), engine)
        records = [stepper.step(derive("lines", i), losses_of(model)).record for i in range(3)]
        stepper.settle()
        found.append((records, dict(model.named_parameters())))
    require_equal(*found)


def methods_options(rest):
    name, _, value = rest.partition("=")
    return {} if not rest else {"n": int(value)} if name == "n" else {"law": LAWS[value]}


@pytest.mark.parametrize("format", ["int4", "int8-asymmetric"])
def test_codes_and_scales_are_those_of_in_forward_to_the_bit(folder, tmp_path, format):
    place, choice = folder("llama", num_hidden_layers=5), Choice(format, 4)
    mapped = streaming.load(place, beside=tmp_path, quantize=choice).model
    require_equal_scales(loading.load(place, quantize=choice).model, mapped)
    written = {part.tensor.data_ptr() for layer in slots_of(mapped)._layers for part in layer}
    assert len(written) > 5
    require_on_the_host(mapped)


def test_a_layer_is_copied_in_once_and_back_once_a_step_when_both_points_have_left_it(folder):
    model = streaming.load(folder("opt", num_hidden_layers=5)).model
    stepper = ZerothOrderStepper(model, methods.make("mezo"), SGD(1e-2), "streamed")
    stepper.step(derive("copies", 0), losses_of(model))
    copies = slots_of(model)._copies
    assert len(copies.begun) == 5  # nothing was pending, so that nothing came back
    copies.begun.clear()
    stepper.step(derive("copies", 1), losses_of(model))
    there = {slot.there.data_ptr(): slot for slot in slots_of(model)._slots}
    coming = [(pairs, after) for pairs, after in copies.begun if pairs[0][0].data_ptr() in there and len(pairs) == 1]
    back = [(pairs, after) for pairs, after in copies.begun if len(pairs) > 1]
    assert len(coming) == len(back) == 5 == len(copies.begun) - 5
    assert all(len(after) == 2 for _, after in copies.begun)  # the ends of both points


def test_layers_without_trained_tensors_may_be_read_far_apart(folder):
    place, found = folder("opt", num_hidden_layers=6), []
    for load, engine in ((loading.load, "in-forward"), (streaming.load, "streamed")):
        model = load(place).model
        select(model, ("*layers.5.*",))
        stepper = ZerothOrderStepper(model, methods.make("mezo"), SGD(falling), engine)
        records = [stepper.step(derive("apart", i), losses_of(model)).record for i in range(4)]
        stepper.settle()
        found.append((records, dict(model.named_parameters())))
    require_equal(*found)


class Layers(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4) for _ in range(count)])
        self.layers[2].bias = self.layers[1].bias
        self.head = nn.Linear(4, 4)
        self.head.weight = self.layers[0].weight
        self.fails = None

    def forward(self, x):
        for k, layer in enumerate(self.layers):
            x = torch.tanh(layer(x))
            if k == self.fails:
                raise ArithmeticError("in a forward")
        return self.head(x)


def evaluated(module, engine, steps=3):
    space, mezo, x = ModuleSpace(module, engine), methods.make("mezo"), torch.ones(2, 4)
    found = []
    for step in range(steps):
        plan = mezo.ask(derive("shared", step), ())
        losses = space.losses(lambda: module(x).square().mean(), plan)
        space.step_(mezo.tell(plan, losses, ()).gradient, -1e-1)
        found += losses.flatten().tolist()
    return found, space.vector()


def pair(count=5):
    torch.manual_seed(0)
    one, other = Layers(count).eval(), Layers(count).eval()
    other.load_state_dict(one.state_dict())
    return one, other, Slots(other, layers_of(other), CPU)


def test_what_two_layers_or_the_head_hold_too_stays_on_the_device():
    one, other, mine = pair()
    own = [[part.tensor for part in layer] for layer in mine._layers]
    assert [len(each) for each in own] == [1, 1, 1, 2, 2]
    expected, found = evaluated(one, test_streamed.InForward()), evaluated(other, Streamed(residence=mine))
    assert expected[0] == found[0] and torch.equal(expected[1], found[1])


def test_a_forward_that_fails_leaves_every_layer_on_the_host():
    one, other, mine = pair()
    space, mezo, x = ModuleSpace(other, Streamed(residence=mine)), methods.make("mezo"), torch.ones(2, 4)
    other.fails = 2
    with pytest.raises(ArithmeticError):
        space.losses(lambda: other(x).mean(), mezo.ask(derive("fails"), ()))
    with pytest.raises(ArithmeticError):
        other(x)
    other.fails = None
    assert not any(slot.users or slot.entered for slot in mine._slots)
    with torch.no_grad():
        for p in (*one.parameters(), *other.parameters()):
            p.mul_(0.5)  # the layer that the failed forward would have read next was copied before
        assert torch.equal(one(x), other(x))
    expected = evaluated(one, test_streamed.InForward())
    found = evaluated(other, Streamed(residence=mine))
    assert expected[0] == found[0] and torch.equal(expected[1], found[1])


def test_a_fault_of_the_disk_is_raised_where_the_layer_is_read():
    class Broken:
        def fetch(self, k):
            if k == 3:
                raise OSError("no such sector")

        def release(self, k): ...

    _, other, _ = pair()
    mine = Slots(other, layers_of(other), CPU, Broken())
    with pytest.raises(OSError, match="no such sector"):
        evaluated(other, Streamed(residence=mine))


# Twins with an error, each of which the equality must notice


def _nothing(self, *_):
    return None


def _without_the_last(self, k, slot, after):
    return _COPY_IN(self, max(0, k - 1), slot, after)


_COPY_IN = Slots._copy_in
_SYNCHRONIZE = _Mark.synchronize


@pytest.mark.parametrize(
    ("owner", "name", "mutant"),
    [
        (Slots, "_copy_back", _nothing),  # a layer is not written back
        (Slots, "_copy_in", _without_the_last),  # a slot has the layer before
        (Late, "hold", _nothing),  # a forward does not wait for its layer
        (_Mark, "synchronize", lambda self: None if threading.current_thread().name.startswith("zobench-fetch") else _SYNCHRONIZE(self)),  # noqa: E501
    ],
)  # fmt: skip
def test_a_mutant_is_seen(folder, monkeypatch, owner, name, mutant):
    place = folder("opt", num_hidden_layers=5)
    expected = stepped(loading.load(place).model, "in-forward", 3)
    monkeypatch.setattr(owner, name, mutant)
    model = streaming.load(place).model
    with pytest.raises((AssertionError, ValueError, FloatingPointError)):
        require_equal(expected, stepped(model, "streamed", 3))


# Runs


@pytest.mark.parametrize("changes", [{}, {"rule": "adam"}, {"rule": "muon"}, {"quantize": "int4", "weight_decay": 0.0}])
def test_a_run_ends_as_in_forward_resumes_and_replays(tmp_path, changes):
    make = quantised if "quantize" in changes else options
    whole, mapped = (
        make("tiny-opt", tmp_path / e, engine=e, steps=6, eval_every=3, **changes) for e in ("in-forward", "streamed")
    )
    gone(Loop.of(mapped), stop=4)
    finals = [train(whole), train(mapped)]
    names = ("fingerprint", "test_loss", "dev_loss", "selected_step")
    assert [finals[0][name] for name in names] == [finals[1][name] for name in names]
    file = "quantised" if "quantize" in changes else "model"
    weights = [(tmp_path / e / f"model/{file}.safetensors").read_bytes() for e in ("in-forward", "streamed")]
    assert weights[0] == weights[1]
    assert not list(tmp_path.rglob(".streamed-*"))


def test_the_dry_run_tells_slots_and_pinned_memory(tmp_path, capsys):
    dry_run.run(options("tiny-opt", tmp_path / "out"))
    said = capsys.readouterr().out
    size = slots_of(streaming.load("tiny-opt").model).size
    assert f"3 of 4 blocks {size / 2**20:.3g} MiB" in said and "of pinned host memory" in said
    assert size >= KEPT * max(file.size for file in blocks_of(streaming.load("tiny-opt").model).files.values()) * 0.98


def test_devices_without_slots_are_refused(monkeypatch):
    monkeypatch.setattr(loading, "require_device", lambda device: torch.device("mps"))
    with pytest.raises(ValueError, match="computes on a CPU or CUDA: give --device cpu"):
        streaming.load("tiny-opt", "mps")


def test_a_kernel_that_two_threads_share_is_launched_once(monkeypatch):
    launched = []

    class Kernels:
        class sweep:
            def __class_getitem__(cls, grid):
                return lambda *a, **k: launched.append(grid)

    monkeypatch.setattr(fused, "_kernels", lambda: Kernels)
    sweep = fused.FusedSweep(torch.ones(8), 0.5, (), (), (), None)
    sweep.take()
    sweep.take()
    assert launched == [(1,)]


class Told:
    """A stream, or a tensor, that notes what it is told and on which stream."""

    log = None  # of the test that is running
    current = "compute"

    def __init__(self, name):
        self.name = name

    def wait_event(self, event):
        self.log.append((self.name, "waits for", event))

    def record_event(self):
        self.log.append((self.name, "records", len(self.log)))
        return len(self.log) - 1

    def copy_(self, source, non_blocking):
        self.log.append((Told.current, "copies", non_blocking))

    def __enter__(self):
        Told.current = self.name

    def __exit__(self, *_):
        Told.current = "compute"


def test_copies_on_cuda_wait_on_a_stream_of_their_own_and_not_on_the_host(monkeypatch):
    streams = {"compute": Told("compute"), "copies": Told("copies")}
    monkeypatch.setattr(Told, "log", [])
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: streams["copies"])
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: streams[Told.current])
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: stream)
    copies = CudaCopies(torch.device("cuda", 0))
    left = copies.mark()
    copied = copies.begin([(Told("there"), Told("staging"))], [left])
    copies.hold(copied)
    assert Told.log == [
        ("compute", "records", left),
        ("copies", "waits for", left),
        ("copies", "copies", True),
        ("copies", "records", copied),
        ("compute", "waits for", copied),
    ]
