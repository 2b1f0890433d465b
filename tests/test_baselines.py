"""Baselines without a step, and what every row says of its cost."""

import json
from pathlib import Path

import pytest
import torch

from analysis.outcomes import outcomes
from analysis.rows import read
from analysis.tables.finetuning import accuracies, accuracies_table
from llm.train import train
from llm.training import memory
from llm.training.memory import MIB, PeakMemory
from llm.training.options import TrainOptions

QUICK = {"steps": 4, "train": 40, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 2, "save": False}
CPU = torch.device("cpu")
needs_reset = pytest.mark.skipif(not memory.RESET.exists(), reason="this system cannot reset a process's peak")


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), **changes})


def rows(folder, kind):
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def held(mib):
    """Take memory for a moment."""
    return len(bytearray(mib * MIB))


@needs_reset
def test_the_peak_is_that_of_the_blocks_alone():
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
    shown = report(tmp_path / "run")
    assert float(shown["peak, MiB"].iloc[0]) == pytest.approx(later[-1]["peak_mb"], rel=1e-4)


def report(folder: Path):
    results = read([folder])
    return accuracies_table(accuracies(outcomes(results), results.of("baseline"))).frame
