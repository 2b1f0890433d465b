"""The dry run: it writes nothing, refuses what a run refuses, and foretells what a run does."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from llm.__main__ import main
from llm.cost.live import LiveMemory, held, size_of
from llm.dry_run import dry_run
from llm.dry_run.tryout import Tryout, evaluated, tokens
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading
from llm.options.train import TrainOptions
from llm.run.context import prepare

QUICK = {"steps": 4, "train": 40, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 3, "save": False}


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), **changes})


def contents(folder):
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_live_memory_counts_what_is_made_and_what_is_freed(device):
    layer, x = nn.Linear(100, 50, device=device), torch.empty(8, 100, device=device)
    with LiveMemory() as memory, torch.no_grad():
        y = layer(x)
        assert memory.live == 8 * 50 * 4
        view = layer.weight.view(-1)[3:]  # of what was there before
        z = y.relu()
        del y
        assert (memory.live, memory.peak) == (8 * 50 * 4, 2 * 8 * 50 * 4) and view.numel()
    del z
    assert memory.live == 0


def test_live_memory_of_a_backward_pass_ends_with_the_gradients():
    model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8))
    with LiveMemory() as memory:
        model(torch.ones(4, 64)).sum().backward()
    gradients = size_of(p.grad for p in model.parameters())
    assert memory.live == gradients == 4 * sum(p.numel() for p in model.parameters())
    assert memory.peak > gradients


def test_memory_that_is_shared_counts_once():
    weight = torch.zeros(10)
    assert size_of([weight, weight.view(2, 5), weight[3:]]) == 40


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_skeleton_has_the_size_of_the_model_and_no_numbers(dtype):
    blank, loaded = loading.skeleton("tiny-opt", dtype), loading.load("tiny-opt", dtype=dtype)
    assert {p.device.type for p in blank.model.parameters()} == {"meta"}
    shapes = [{n: (p.shape, p.dtype) for n, p in m.model.named_parameters()} for m in (blank, loaded)]
    assert shapes[0] == shapes[1] and held(blank.model) == held(loaded.model)
    assert blank.tokenizer("Hello")["input_ids"] == loaded.tokenizer("Hello")["input_ids"]


@pytest.mark.parametrize("changes", [{}, {"method": "adamw"}, {"adapter": "lora:r=2"}, {"method": "zero-shot"}])
def test_nothing_is_written(changes, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    dry_run.run(options(tmp_path, dry_run=True, **changes))
    assert contents(tmp_path) == {} and list(tmp_path.iterdir()) == []
    assert "nothing is written" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:losses along lines")  # of epsilon="auto" on so few tokens
@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("mezo", {"also": ("sentences",), "also_examples": 5}),
        ("kerzoo:n=2", {}),
        ("richardson", {}),
        ("adamw", {}),
        ("mezo", {"epsilon": "auto"}),
    ],
)
def test_passes_and_evaluations_are_those_of_the_run(method, changes, tmp_path, monkeypatch):
    given, further = options(tmp_path, method=method, lr=1e-4, **changes), 15 if "also" in changes else 0
    context = prepare(options(tmp_path, method=method, lr=1e-4, dry_run=True, **changes))
    tryout = Tryout.of(context, context.stepper())
    foretold = {name: sum(len(rows) for _, rows in parts) for name, parts in evaluated(context).items()}
    measured = []
    real = Loop.of(given)
    measure = type(real.context.objective).measure
    monkeypatch.setattr(
        type(real.context.objective),
        "measure",
        lambda self, rows, *a: measured.append(len(rows)) or measure(self, rows, *a),
    )
    real.go()
    (final,) = real.log.record.find(kind="final")
    assert final["backward_passes"] == given.steps * tryout.backward
    assert sum(measured) == sum(foretold.values()) and list(foretold.values()) == [60, 30, further, 10]
    if "epsilon" in changes:
        assert tryout.first > tryout.forward == 2
    else:
        assert final["forward_passes"] == given.steps * tryout.forward and tryout.first == tryout.forward


def test_directions_live_on_what_the_tried_examples_read(tmp_path):
    given = {"rows": "touched", "engine": "in-forward", "lr": 1e-4}
    dry_run.run(options(tmp_path, dry_run=True, **given))  # the longest examples are no minibatch of a run


def test_memory_of_a_first_order_run_is_gradients_moments_and_activations(tmp_path):
    context = prepare(options(tmp_path, method="adamw", dry_run=True))
    tryout, trained = Tryout.of(context, context.stepper()), held(context.language_model.model)
    assert tryout.gradients == trained
    assert 2 * trained <= tryout.optimiser < 2.01 * trained
    assert tryout.step_peak > tryout.gradients + tryout.optimiser


def test_memory_of_a_zeroth_order_step_stays_below_a_copy_of_the_model_and_gradients(tmp_path):
    contexts = [prepare(options(tmp_path, method=method, batch=1, dry_run=True)) for method in ("mezo", "sgd")]
    zeroth, first = (Tryout.of(context, context.stepper()) for context in contexts)
    assert (zeroth.gradients, zeroth.optimiser) == (0, 0) and first.gradients > 0
    assert zeroth.step_peak < first.step_peak


def test_tokens_count_padding_and_candidates(tmp_path):
    context = prepare(options(tmp_path, dry_run=True))
    rows = context.data.dev
    assert tokens(context.objective, rows) == len(rows) * max(len(row.tokens) for row in rows)  # one batch of them
    assert tokens(context.objective, []) == 0


def test_the_report_names_what_is_trained_and_what_is_cut(tmp_path, capsys):
    dry_run.run(options(tmp_path, adapter="lora:r=2", dry_run=True, max_tokens=24))
    shown = capsys.readouterr().out
    model = loading.load("tiny-opt")
    adapted = [m for n, m in model.model.named_modules() if n.endswith(("q_proj", "v_proj"))]
    trained = 2 * sum(sum(m.weight.shape) for m in adapted)  # rank 2: A (2, in) and B (out, 2)
    assert f"{trained:,} of" in shown and "LoRA" in shown and "Embedding" not in shown
    context = prepare(options(tmp_path, dry_run=True))
    lengths = [len(model.tokenizer(row.example.prompt)["input_ids"]) for row in context.data.train]
    cut = sum(length > 24 for length in lengths)
    assert 0 < cut < 40
    assert f"{max(lengths)} at most\n" in shown and f"({cut} of 40 train, " in shown


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "spma"},
        {"method": "kerzo"},
        {"dtype": "float8"},
        {"device": "cuda:99"},
        {"model": "./nowhere"},
        {"model": "tiny-optt"},
        {"epsilon": 1e-6, "dtype": "bfloat16"},
        {"train": 4000},
        {"batch": 41},
        {"steps": 0},
        {"max_tokens": 400},
        {"lr": -1.0},
        {"objective": "accuracy", "method": "sgd"},
        {"adapter": "lora:r=0"},
        {"rows": "touched", "objective": "language-model"},
    ],
)
def test_it_refuses_what_a_run_refuses_in_the_same_words(changes, tmp_path):
    with pytest.raises(ValueError) as wanted:
        Loop.of(options(tmp_path, **changes))
    with pytest.raises(ValueError) as found:
        dry_run.run(options(tmp_path, dry_run=True, **changes))
    assert str(found.value) == str(wanted.value) and not (tmp_path / "run").exists()


def test_a_folder_that_a_run_would_refuse_is_refused_and_left_alone(tmp_path):
    session = Loop.of(options(tmp_path))
    take = session.stepper.step

    def stop_at_two(*arguments):
        if session.stepper.steps == 2:
            raise KeyboardInterrupt
        return take(*arguments)

    session.stepper.step = stop_at_two
    with pytest.raises(KeyboardInterrupt):
        session.go()
    with (tmp_path / "run/rows.jsonl").open("a") as file:
        file.write('{"kind": "st')
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="another configuration"):
        dry_run.run(options(tmp_path, lr=0.5, dry_run=True))
    with pytest.raises(ValueError, match="give --resume"):
        dry_run.run(options(tmp_path, resume=False, dry_run=True))
    dry_run.run(options(tmp_path, dry_run=True))
    assert contents(tmp_path) == before
    journal = tmp_path / "run/journal.bin"
    journal.write_bytes(journal.read_bytes()[:-9] + b"damaged!!" + journal.read_bytes()[-60:])
    with pytest.raises(ValueError, match=r"journal\.bin"):
        dry_run.run(options(tmp_path, dry_run=True))


def test_it_says_how_far_a_run_is_and_that_a_finished_one_is(tmp_path, capsys):
    train(options(tmp_path))
    before = contents(tmp_path)
    dry_run.run(options(tmp_path, dry_run=True))
    assert "holds a finished run" in capsys.readouterr().out and contents(tmp_path) == before
    lines = (tmp_path / "run/rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run/rows.jsonl").write_text("".join(line for line in lines if json.loads(line)["kind"] != "final"))
    dry_run.run(options(tmp_path, dry_run=True))
    assert "holds 4 of the 4 steps" in capsys.readouterr().out


def test_a_model_that_cannot_fit_is_told_and_never_loaded(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "free_memory", lambda device: 4_000_000)
    monkeypatch.setattr(loading, "load", lambda *a, **k: pytest.fail("the weights were loaded"))
    with pytest.raises(ValueError, match=r"tiny-opt needs 4\.13 MiB, but 3\.81 MiB are free on cpu"):
        dry_run.run(options(tmp_path, dry_run=True))
    assert "1,082,368 weights, by the configuration alone: weights 4.13 MiB" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"needs 16\.5 MiB"):
        dry_run.run(options(tmp_path, method="adamw", dry_run=True))


def test_memory_that_activations_exceed_and_a_disk_that_is_full_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(dry_run, "free_memory", lambda device: 4_500_000)
    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda place: type("Usage", (), {"free": 1000}))
    dry_run.run(options(tmp_path, save=True, dry_run=True))
    assert capsys.readouterr().out.count("this does not fit") == 2


def test_steps_that_would_be_skipped_are_told(tmp_path, capsys):
    dry_run.run(options(tmp_path, lr=1e38, dry_run=True))
    assert "would be skipped" in capsys.readouterr().out


def test_the_command_is_a_dry_run_with_one_word(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    quick = ["--steps", "4", "--train", "16", "--dev", "4", "--test", "4", "--max-tokens", "16"]
    assert main(["train", *quick, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "16 forward" not in shown and "8 forward in 4 steps of 2, no backward" in shown
    assert not Path("runs").exists()
    assert main(["tune", *quick, "--dry-run", "--lr", "1e-5:1e-3"]) == 0
    shown = capsys.readouterr().out
    assert "0 before the first step" in shown and "0 of test" in shown and not Path("runs").exists()


def test_free_memory_is_known_on_linux():
    free = dry_run.free_memory("cpu")
    assert free is None or 2**20 < free < 2**50
