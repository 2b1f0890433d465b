"""--report-to: what places outside are sent of a run."""

import struct
import sys
from types import SimpleNamespace

import pytest

from llm.__main__ import main

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = ["--train", "20", "--dev", "10", "--test", "10", "--batch", "4", "--max-tokens", "16", "--eval-every", "2",
         "--steps", "4", "--no-save", "--no-baselines"]  # fmt: skip


def run(out, *places):
    return main(["train", *QUICK, "--report-to", ",".join(places), "--out", str(out)])


def scalars(folder):
    """(tag, step) of each number in the event files of a folder."""
    events = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for file in folder.iterdir():
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = events.Event.FromString(data[at + 12 : at + 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            at += 16 + length
    return found


def test_tensorboard_gets_steps_evaluations_and_the_test(tmp_path):
    pytest.importorskip("tensorboardX")
    assert run(tmp_path / "run", "tensorboard") == 0
    found = scalars(tmp_path / "run/tensorboard")
    assert [step for tag, step, _ in found if tag == "train/loss"] == [0, 1, 2, 3]
    assert [step for tag, step, _ in found if tag == "dev/loss"] == [0, 2, 4]
    assert [value for tag, _, value in found if tag == "train/forward_passes"] == [2, 4, 6, 8]
    assert [step for tag, step, _ in found if tag == "test/accuracy"] == [4]


class Sent:
    """A stand-in for wandb and mlflow that keeps what it is sent."""

    def __init__(self):
        self.logged, self.began, self.closed = [], [], 0

    def init(self, **about):
        self.began.append(about)
        return SimpleNamespace(log=lambda numbers, step: self.logged.append((step, numbers)), finish=self.end_run)

    def set_experiment(self, name):
        self.began.append(name)

    def start_run(self, run_name):
        self.began.append(run_name)

    def log_params(self, values):
        self.began.append(values)

    def log_metrics(self, numbers, step):
        self.logged.append((step, numbers))

    def end_run(self):
        self.closed += 1


def test_wandb_and_mlflow_are_sent_the_same_and_are_closed(tmp_path, monkeypatch):
    places = {name: Sent() for name in ("wandb", "mlflow")}
    for name, place in places.items():
        monkeypatch.setitem(sys.modules, name, place)
    assert run(tmp_path / "run", "wandb", "mlflow") == 0
    assert places["wandb"].logged == places["mlflow"].logged and len(places["wandb"].logged) == 4 + 3 + 1
    assert [place.closed for place in places.values()] == [1, 1]
    assert places["wandb"].began[0]["config"]["batch"] == 4 and places["mlflow"].began[:2] == ["zobench", "run"]


def test_a_place_is_left_when_a_step_fails_and_a_resumed_run_sends_only_new_steps(tmp_path, monkeypatch):
    first, second = Sent(), Sent()
    monkeypatch.setitem(sys.modules, "wandb", first)
    from llm.loop.loop import Loop

    taken, step = [], Loop._step

    def interrupted(self, number, shown):
        if number == 2 and not taken:
            taken.append(number)
            raise KeyboardInterrupt
        step(self, number, shown)

    monkeypatch.setattr(Loop, "_step", interrupted)
    with pytest.raises(SystemExit):
        run(tmp_path / "run", "wandb")
    monkeypatch.setitem(sys.modules, "wandb", second)
    assert run(tmp_path / "run", "wandb") == 0
    assert first.closed == second.closed == 1
    losses = [[step for step, numbers in place.logged if "train/loss" in numbers] for place in (first, second)]
    assert losses == [[0, 1], [2, 3]]


def test_a_place_that_is_unknown_or_not_installed_is_told_before_anything_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    for name, said in (("tensorbord", "Did you mean 'tensorboard'?"), ("mlflow", "pip install mlflow")):
        with pytest.raises(SystemExit):
            run(tmp_path / "run", name)
        assert said in capsys.readouterr().err and not (tmp_path / "run").exists()
