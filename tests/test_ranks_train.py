"""torchrun -m llm train: one run of several processes, that any number of processes continue."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from ranks import Ended, together

from llm.__main__ import main
from llm.loop.train import together as train_together
from llm.loop.train import train
from llm.options.train import TrainOptions
from llm.studies.queue import Queue
from zobench.run import exit_status
from zobench.run.journal import read

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {"train": 16, "dev": 4, "test": 4, "max_tokens": 16, "batch": 4, "baselines": False, "select": "last"}
STEPS = {"steps": 6, "eval_every": 3, "lr": 1e-3, "method": "mezo:n=2", "compare_every": 2, "rank_timeout": 120.0}


def options(folder, **changes):
    return TrainOptions(**{**SIZES, **STEPS, "out": str(folder), **changes})


def weights(folder):
    return (Path(folder) / "model/model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(options(folder))
    return folder


def test_torchrun_trains_to_the_weights_of_one_process(alone, tmp_path):
    given = [word for name, value in {**SIZES, **STEPS}.items() for word in spelt(name, value)]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "llm", "train", *given, "--out", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("2 processes: ") == ended.stdout.count("mezo:n=2: dev accuracy") == 1
    assert weights(tmp_path / "run") == weights(alone)


@pytest.mark.parametrize("changes", [{"engine": "streamed"}, {"engine": "streamed", "quantize": "int4"}])
def test_processes_share_what_is_streamed_or_quantised(changes, alone, tmp_path):
    train(options(tmp_path / "one", **{**changes, "engine": "in-forward"}))
    shared = lambda _: train_together(options(tmp_path / "run", **changes)) is not None  # noqa: E731
    assert together(2, shared, tmp_path / "both") == [Ended(True), Ended(False)]
    found, wanted, dense = map(numbers, (tmp_path / "run", tmp_path / "one", alone))
    assert found == wanted != dense  # the plain engine's way to a point rounds


@pytest.mark.parametrize(
    "changes",
    [
        {"fake_quantize": "w4a4"},
        {"fake_quantize": "w2a16", "trained": ("*smoothing", "*clipping"), "engine": "in-forward"},
    ],
)
def test_processes_share_the_points_of_training_for_quantisation(changes, tmp_path):
    """Rank 1 calibrates on its own; what is trained is compared too, since a step may leave every code as it was."""
    one = train(options(tmp_path / "one", **changes))
    shared = lambda _: train_together(options(tmp_path / "run", ranks="probes", **changes))  # noqa: E731
    first, second = (each.value for each in together(2, shared, tmp_path / "both"))
    assert first["fingerprint"] == one["fingerprint"] and second is None
    assert numbers(tmp_path / "run") == numbers(tmp_path / "one")
    still = train(options(tmp_path / "still", **{**changes, "lr": 1e-12}))
    assert still["fingerprint"] != one["fingerprint"] and numbers(tmp_path / "still") != numbers(tmp_path / "one")


def numbers(folder):
    (file,) = (Path(folder) / "model").glob("*.safetensors")
    return file.read_bytes()


def spelt(name, value):
    flag = "--" + name.replace("_", "-")
    return [flag.replace("--", "--no-", 1)] if value is False else [flag, str(value)]


def stopped(folder, step, at):
    """What a process does that is told to end while it takes a step."""

    def work(rank):
        if rank == at:
            interrupt_in_step(step)
        return train_together(options(folder)) is not None

    return work


def interrupt_in_step(step):
    """Let this process get SIGTERM while it takes a step."""
    from llm.steppers.zeroth_order import ZerothOrderStepper

    taking = ZerothOrderStepper.step

    def told(self, *given, **named):
        if self.steps == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return taking(self, *given, **named)

    ZerothOrderStepper.step = told


@pytest.mark.parametrize(("at", "world"), [(0, 1), (1, 3)])
def test_a_signal_to_one_process_ends_all_and_another_number_continues(at, world, alone, tmp_path):
    folder = tmp_path / "run"
    for ended in together(2, stopped(folder, 3, at), tmp_path / "first"):
        assert ended.error.startswith("KeyboardInterrupt")
    assert len(read(folder / "journal.bin").records) == 4
    if world == 1:
        train(options(folder))
    else:
        then = together(world, lambda _: train_together(options(folder)) is not None, tmp_path / "then")
        assert then == [Ended(True), Ended(False), Ended(False)]
    assert weights(folder) == weights(alone)


def test_a_process_joins_a_run_by_the_base_model_and_the_journal(alone, tmp_path):
    folder = tmp_path / "run"
    assert together(1, stopped_alone(folder, 4), tmp_path / "first")[0].error.startswith("KeyboardInterrupt")

    def work(rank):
        if rank == 1:  # no checkpoint, no journal: what rank 0 sends is all that it has
            train_together(options(tmp_path / "elsewhere"))
            return (tmp_path / "elsewhere").exists()
        return train_together(options(folder))["status"]

    assert [each.value for each in together(2, work, tmp_path / "then")] == ["ok", False]
    assert weights(folder) == weights(alone)


def stopped_alone(folder, step):
    def work(rank):
        os.environ["WORLD_SIZE"] = "1"
        interrupt_in_step(step)
        train(options(folder))

    return work


def test_a_process_that_dies_leaves_a_run_that_continues(alone, tmp_path):
    folder = tmp_path / "run"

    def work(rank):
        if rank == 1:
            from llm.steppers.zeroth_order import ZerothOrderStepper

            taking = ZerothOrderStepper.step
            ZerothOrderStepper.step = lambda self, *given, **named: (
                os.kill(os.getpid(), signal.SIGKILL) if self.steps == 3 else taking(self, *given, **named)
            )
        return train_together(options(folder))

    first, second = together(2, work, tmp_path / "first")
    assert first.error.startswith("RankLostError: rank 1 has ended or hangs") and second.value is None
    assert len(read(folder / "journal.bin").records) == 3
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert [row["reason"][:13] for row in rows if row["kind"] == "failure"] == ["RankLostError"]
    train(options(folder))
    assert weights(folder) == weights(alone)


def test_weights_that_differ_are_found_and_their_process_named(tmp_path):
    def work(rank):
        if rank == 1:
            from llm.steppers.zeroth_order import ZerothOrderStepper

            applying = ZerothOrderStepper._apply

            def wrong(self, gradient, *given):
                return applying(self, gradient * 1.001, *given)

            ZerothOrderStepper._apply = wrong
        return train_together(options(tmp_path / "run", device="cpu"))

    for ended in together(2, work, tmp_path / "ranks"):
        assert "rank 1 of 2 ranks has another checksum of the weights after step 2" in ended.error


def test_other_data_is_refused_before_the_first_step(tmp_path):
    work = lambda rank: train_together(options(tmp_path / "run", seed=rank))  # noqa: E731
    for ended in together(2, work, tmp_path / "ranks"):
        assert "rank 1 of 2 ranks has another base model, data or options" in ended.error
    assert not read(tmp_path / "run/journal.bin").records


@pytest.mark.parametrize("command", ["compare", "study", "tune"])
def test_studies_have_workers_of_their_own_and_refuse_torchruns(command, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setattr(Queue, "finish", lambda *_: pytest.fail("a run was made"))
    with pytest.raises(SystemExit) as ended:
        main([command, "--out", str(tmp_path / "out")])
    assert ended.value.code == exit_status.BAD_INPUT and not (tmp_path / "out").exists()
    said = capsys.readouterr().err
    assert (
        "4 processes, which share the steps of `train` alone" in said and "--workers 4" in said and "--backend" in said
    )


def refused(folder, changes, rank):
    return train_together(options(folder, **changes))


def test_what_processes_cannot_share_is_refused(tmp_path):
    for changes, said in (
        ({"method": "adamw"}, "adamw takes steps along gradients"),
        ({"method": "zero-shot"}, "zero-shot takes"),
        ({"ranks": "3x2"}, "needs 6 processes, but there are 2"),
        ({"rank_timeout": 0.0}, "timeout"),
        ({"batch": 1, "ranks": "data"}, "1 examples in parts of 1 are 1 parts, but 2 processes share them"),
    ):
        work = partial(refused, tmp_path / "run", changes)
        for ended in together(2, work, tmp_path / said[:5]):
            assert said in ended.error
