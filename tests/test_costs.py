"""What every row says of its cost, and first-order steps as they are counted."""

import json
import mmap

import pytest
import torch
from tiny_models import language_model
from torch import nn
from trimmed import trim

from analysis.outcomes import outcomes
from analysis.rows import read
from analysis.tables.finetuning import accuracies, costs_table
from llm.cost import memory
from llm.cost.memory import MIB, PeakMemory
from llm.cost.meter import Meter
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model.recompute import recompute_layers
from llm.objective import Encoded, Objective
from llm.options.train import TrainOptions
from llm.steppers.first_order import FIRST_ORDER, FirstOrderStepper

QUICK = {"steps": 4, "train": 40, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 2, "save": False}
CPU = torch.device("cpu")
BATCH = [Encoded([2, 17, 4, 90, *range(40)], 0), Encoded([2, 33], 1), Encoded([2, *range(100, 150)], 1)]
needs_reset = pytest.mark.skipif(not memory.RESET.exists(), reason="this system cannot reset a process's peak")


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), **changes})


def rows(folder, kind):
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def held(mib):
    """Take memory for a moment, from the system itself: the C library may keep what it is given back."""
    with mmap.mmap(-1, mib * MIB) as taken:
        for page in range(0, mib * MIB, 4096):
            taken[page] = 1


@needs_reset
def test_the_peak_is_that_of_the_blocks_alone():
    trim()
    meter, before = PeakMemory(CPU), PeakMemory(CPU)
    with before:
        pass
    held(400)
    with meter:
        held(150)
    held(400)
    assert 140 < meter.mb - before.mb < 300
    with meter:
        pass
    assert meter.mb - before.mb > 140  # a quiet block lowers nothing


def test_without_the_counter_of_linux_the_peak_is_that_of_the_process(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "RESET", tmp_path / "none" / "either")
    with PeakMemory(CPU) as meter:
        held(10)
    assert meter.mb > 10


def test_rows_with_a_cost_say_their_peak_memory(tmp_path):
    train(options(tmp_path))
    chance, zero, calibrated = rows(tmp_path / "run", "baseline")
    assert (chance["forward_passes"], chance["seconds"], chance["peak_mb"]) == (0, 0, None)
    assert (zero["forward_passes"], calibrated["forward_passes"]) == (2, 3)  # dev, test; and the training examples
    assert 0 < zero["seconds"] < calibrated["seconds"] and 50 < zero["peak_mb"] <= calibrated["peak_mb"]
    first, *later = rows(tmp_path / "run", "evaluation")
    assert first["peak_mb"] is None and all(row["peak_mb"] > 50 for row in later)
    assert rows(tmp_path / "run", "final")[0]["peak_mb"] == later[-1]["peak_mb"]
    results = read([tmp_path / "run"])
    shown = costs_table(accuracies(outcomes(results), results.of("baseline"))).frame
    assert shown["peak memory, MiB"].iloc[0] == f"{later[-1]['peak_mb']:,.0f}"


@needs_reset
def test_a_first_order_step_holds_gradients_and_the_moments_of_adamw():
    """64 MiB of weights: sgd holds as much again, AdamW three times, and some room while it computes."""
    peaks = {}
    for method in FIRST_ORDER:
        trim()
        model = nn.Linear(4096, 4096, bias=False)
        trainer, inputs = FirstOrderStepper(model, method, lambda step: 1e-3, 0.0), torch.randn(2, 4096)
        with PeakMemory(CPU) as before:
            pass
        with PeakMemory(CPU) as meter:
            for _ in range(2):
                trainer.step(0, lambda: model(inputs).square().mean(1))  # noqa: B023 called at once
        peaks[method] = meter.mb - before.mb
    assert 50 < peaks["sgd"] < 160 and 180 < peaks["adamw"] < 420


@pytest.mark.parametrize("method", FIRST_ORDER)
def test_first_order_passes_are_those_that_the_model_makes(method, tmp_path):
    session = Loop.of(options(tmp_path, method=method, lr=1e-4))
    backward = []
    session.context.language_model.model.model.decoder.embed_tokens.weight.register_hook(lambda _: backward.append(1))
    with Meter(session.context.language_model) as meter:
        for step in range(3):
            session.stepper.step(0, lambda: session.context.objective.losses(session.context.minibatch(step)))  # noqa: B023
    assert session.stepper.forward_passes == meter.forward_passes == 3
    assert session.stepper.backward_passes == len(backward) == 3


@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama", "qwen2", "roberta"])
def test_recomputed_layers_give_the_same_gradients_and_keep_less(kind):
    found = {}
    for recomputed in (False, True):
        model = language_model(kind)
        layers = recompute_layers(model.model) if recomputed else 2
        mask = model.tokenizer.mask_token_id
        batch = [Encoded([*row.tokens, mask], row.label) for row in BATCH] if model.masked else BATCH
        kept = []
        keep = lambda tensor: (kept.append(tensor.numel()), tensor)[1]  # noqa: B023, E731
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = Objective(model, ((5,), (9,)), 64).losses(batch).mean()
        size = sum(kept)
        loss.backward()
        gradients = {name: p.grad for name, p in model.model.named_parameters() if p.grad is not None}
        found[recomputed] = layers, loss.detach(), gradients, size
    (plain, one, wanted, much), (layers, other, given, little) = found.values()
    assert layers == plain and torch.equal(one, other) and wanted.keys() == given.keys()
    assert all(torch.allclose(given[name], wanted[name], rtol=1e-5, atol=1e-7) for name in wanted)
    assert little < 0.7 * much


def test_a_run_with_recomputed_layers_is_the_run_without(tmp_path):
    for name, recomputed in (("plain", False), ("again", True)):
        train(options(tmp_path, method="adamw", lr=1e-3, gradient_checkpointing=recomputed, out=str(tmp_path / name)))
    one, other = (rows(tmp_path / name, "final")[0] for name in ("plain", "again"))
    assert one["test_loss"] == pytest.approx(other["test_loss"], rel=1e-5)
    assert (
        (one["forward_passes"], one["backward_passes"]) == (other["forward_passes"], other["backward_passes"]) == (4, 4)
    )


def test_layers_are_not_recomputed_where_nothing_is_kept_or_none_is_known(tmp_path):
    with pytest.raises(ValueError, match="mezo has no backward pass"):
        Loop.of(options(tmp_path, gradient_checkpointing=True))
    with pytest.raises(ValueError, match="Linear has no layers"):
        recompute_layers(nn.Linear(2, 2))
