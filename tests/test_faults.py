"""Faults of training: losses that are not finite, divergence, damaged and foreign files, full disks, hostile models."""

import errno
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
import torch
from interrupted import gone
from torch import nn

from llm.__main__ import main
from llm.loop.divergence import Divergence
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading
from llm.objective import Objective
from llm.options.journal import main as journal
from llm.options.train import TrainOptions
from llm.run import checkpoint, context
from llm.run.journal import rebuild
from llm.steppers.first_order import FirstOrderStepper
from llm.steppers.taken import Taken
from llm.steppers.zeroth_order import ZerothOrderStepper
from tests.interrupted import with_objective
from zobench import SGD, AutoEpsilon, InForwardSpace, ModuleSpace, derive, methods
from zobench.run.journal import Record, read

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[1]
QUICK = {"steps": 6, "train": 20, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 4, "lr": 1e-4}
QUICK |= {"select": "last"}


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "save": False, "out": str(tmp_path / "run"), **changes})


def rows(folder, kind):
    return [row for row in map(json.loads, (folder / "rows.jsonl").read_text().splitlines()) if row["kind"] == kind]


def weights(session):
    return session.stepper.space.vector()


def run(tmp_path, stop=None, **changes):
    """A run to its end, or one that is interrupted before step `stop`."""
    return gone(Loop.of(options(tmp_path, **changes)), stop)


def trainer_of(estimator, dtype=torch.float32, rate=0.01, space=ModuleSpace, decay=0.01):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype).eval()
    trainer = ZerothOrderStepper(model, estimator, SGD(rate, decay))
    trainer.space = space(model)
    return trainer, model


def take(trainer, model, steps, bad=()):
    """The records of steps on a small loss that is not finite at some of them."""
    return [taken.record for taken in taken_by(trainer, model, steps, bad)]


def taken_by(trainer, model, steps, bad=(), watched=False):
    dtype = next(model.parameters()).dtype
    inputs = torch.linspace(-1, 1, 24).view(4, 6).to(dtype)

    def losses(step):
        return model(inputs).float().square().mean(1) * (math.inf if step in bad else 1.0)

    return [trainer.step(derive("key", k), lambda k=k: losses(k), watched) for k in steps]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "estimator", [methods.make("mezo", n=2), AutoEpsilon(every=3, lines=2), methods.make("forward")]
)
@pytest.mark.parametrize("space", [ModuleSpace, InForwardSpace])
def test_skipped_steps_are_repeated_to_the_bit(estimator, dtype, space):
    """Steps 2 and 6 are not finite, which for the probes of AutoEpsilon is step 6 of its own."""
    whole, model = trainer_of(estimator, dtype, space=space)
    records = take(whole, model, range(9), bad=(2, 6))
    assert [r.step for r in records if r.skipped] == [2, 6] and whole.steps == 9
    again, model = trainer_of(estimator, dtype, space=space)
    for record in records[:7]:
        again.replay(record)
    take(again, model, range(7, 9))
    whole.space.settle_(), again.space.settle_()
    assert torch.equal(whole.space.vector(), again.space.vector())
    assert whole.forward_passes == again.forward_passes and whole.state == again.state
    told, _ = trainer_of(estimator, dtype, space=space)
    for record in records:  # scalars alone
        told.recall(record)
    assert told.state == whole.state and told.steps == 9 and told.forward_passes == whole.forward_passes
    assert torch.equal(told.space.vector(), trainer_of(estimator, dtype, space=space)[0].space.vector())


def test_a_replay_that_does_not_walk_for_skipped_steps_is_seen():
    whole, model = trainer_of(methods.make("mezo", n=2, epsilon=0.05))
    records = take(whole, model, range(40), bad=range(1, 40))
    planted, _ = trainer_of(methods.make("mezo", n=2, epsilon=0.05))
    planted.replay(records[0])
    assert not torch.equal(whole.space.vector(), planted.space.vector())
    moved = (whole.space.vector() - planted.space.vector()).abs().max()
    assert float(moved) < 1e-6


def test_nothing_that_is_no_number_reaches_the_weights():
    for dtype, rate, loss in (
        (torch.float32, 0.01, math.nan),
        (torch.float32, 0.01, math.inf),
        (torch.float32, 1e38, 1.0),
        (torch.float16, 1e7, 1.0),
    ):
        trainer, model = trainer_of(methods.make("mezo", epsilon=0.01), dtype, rate, decay=0.0)
        before = trainer.space.vector()
        taken = trainer.step(1, lambda model=model, loss=loss: sum(p.float().sum() for p in model.parameters()) * loss)
        assert "losses" in taken.record.skipped or "overflows" in taken.record.skipped
        assert torch.allclose(trainer.space.vector(), before, atol=1e-3 if dtype == torch.float16 else 1e-7)
    trainer, model = trainer_of(methods.make("mezo"), rate=1.0, decay=1.5)
    assert "weight decay 1.5 is above 1" in trainer.step(1, lambda: model[0].weight.sum()).record.skipped
    model = nn.Linear(2, 1)
    first = FirstOrderStepper(model, "adamw", lambda step: 0.1, 0.0)
    before = model.weight.detach().clone()
    taken = first.step(0, lambda: (model.weight - model.weight).abs().sqrt().sum())  # finite, and its gradient is not
    assert "gradient" in taken.record.skipped and torch.equal(model.weight, before)
    assert first.step(1, lambda: model.weight.square().sum()).record.skipped == ""
    assert not torch.equal(model.weight, before)


def failing(session, from_step):
    measure = session.context.objective.losses
    first = session.context.minibatch(0)

    class Failing(Objective):
        def losses(self, batch):
            bad = session.stepper.steps >= from_step and batch is not first
            return measure(batch) * (math.nan if bad else 1)

    return with_objective(session, Failing(*session.context.objective.__dict__.values()))


def test_too_many_skipped_steps_in_a_row_stop_the_run_with_advice(tmp_path, capsys):
    session = failing(Loop.of(options(tmp_path, steps=50, max_skipped=3)), 2)
    session.go()
    (final,) = rows(tmp_path / "run", "final")
    assert (final["step"], final["skipped"], final["status"]) == (5, 3, "diverged")
    assert [row["step"] for row in rows(tmp_path / "run", "skipped")] == [2, 3, 4]
    assert "3 steps in a row were skipped" in capsys.readouterr().err
    kept = read(tmp_path / "run/journal.bin").records
    assert [bool(record.skipped) for record in kept] == [False, False, True, True, True]
    session.stepper.space.settle_()
    again = Loop.of(options(tmp_path, out=str(tmp_path / "other")))
    for record in kept:
        again.stepper.replay(record)
    assert torch.equal(weights(again), weights(session))


def test_a_run_that_stopped_is_not_taken_further_by_a_kill_before_its_last_row(tmp_path):
    session = failing(Loop.of(options(tmp_path, steps=50, max_skipped=3)), 2)
    session._finish = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        session.go()
    assert train(options(tmp_path, steps=50, max_skipped=3))["step"] == 5


def test_divergence_is_told_once_and_marks_the_run(tmp_path, capsys):
    changes = {"steps": 8, "diverged_window": 2, "diverged_at": 1.0001, "lr": 3e-2}
    run(tmp_path, **changes)
    (row,) = rows(tmp_path / "run", "divergence")
    assert row["mean_loss"] > row["limit"] and rows(tmp_path / "run", "final")[0]["status"] == "diverged"
    assert capsys.readouterr().err.count("the run has diverged") == 1


def test_what_counts_as_divergence():
    watch = Divergence(0.7, 3, 2.0, 4)
    seen = []
    for loss in (0.7, 9.0, 0.7, 0.7, 0.7, 0.7, 1.5, 1.5, 1.5, 1.5):
        watch.on_step(Taken(Record(0, 0), loss))
        seen.append(watch.diverged)
    assert seen == [False, False, False, True, True, False, False, False, False, True]
    watch.on_step(Taken(Record(0, 0, skipped="losses [nan]"), math.nan))
    assert watch.diverged and watch.losses == deque([1.5] * 4) and watch.in_a_row == 1
    assert Divergence(1e-4, 3, 5.0, 1, losses=deque([0.4])).diverged is False


@pytest.mark.parametrize("method", ["sgd", "adamw"])
def test_a_first_order_run_continues_from_its_checkpoint_to_the_bit(method, tmp_path, capsys):
    changes = {"method": method, "lr": 1e-3, "checkpoint_every": 2}
    run(tmp_path, **changes, out=str(tmp_path / "whole"))
    run(tmp_path, stop=5, **changes)
    resumed = Loop.of(options(tmp_path, **changes))
    assert resumed.stepper.steps == 0
    resumed.go()
    one, other = (rows(tmp_path / name, "final")[0] for name in ("whole", "run"))
    for name in ("dev_loss", "test_loss", "forward_passes", "backward_passes"):
        assert one[name] == other[name]
    one, other = (rows(tmp_path / name, "evaluation")[-1] for name in ("whole", "run"))
    assert one["train_loss"] == other["train_loss"]
    assert [row["step"] for row in rows(tmp_path / "run", "step")] == list(range(6))
    assert "starts again" not in capsys.readouterr().out


def test_without_a_checkpoint_a_first_order_run_says_why_it_starts_again(tmp_path, capsys):
    run(tmp_path, stop=3, method="adamw")
    run(tmp_path, method="adamw")
    assert "takes gradient steps, which recorded losses cannot rebuild" in capsys.readouterr().out
    assert journal(["verify", str(tmp_path / "run")]) == 0
    assert "6 steps and" in capsys.readouterr().out
    assert journal(["replay", str(tmp_path / "run")]) == 2
    assert "takes gradient steps, which recorded losses cannot rebuild" in capsys.readouterr().err


def test_checkpoints_bound_the_replay_and_two_are_kept(tmp_path, monkeypatch, capsys):
    changes = {"steps": 8, "checkpoint_every": 2}
    whole = run(tmp_path, **changes, out=str(tmp_path / "whole"))
    run(tmp_path, stop=7, **changes)
    kept = [file.name for file in checkpoint.files(tmp_path / "run/checkpoints")]
    assert kept == ["step-00000006.safetensors", "step-00000004.safetensors"]
    session = Loop.of(options(tmp_path, **changes))
    walked, told, trainer = [], [], session.stepper
    replay, recall = trainer.replay, trainer.recall
    monkeypatch.setattr(trainer, "replay", lambda record: walked.append(record.step) or replay(record))
    monkeypatch.setattr(trainer, "recall", lambda record: told.append(record.step) or recall(record))
    session.go()
    assert (told, walked) == ([0, 1, 2, 3, 4, 5], [6]) and torch.equal(weights(session), weights(whole))
    assert "continued at step 7, of which 6 came from a checkpoint" in capsys.readouterr().out


def test_damaged_checkpoints_are_passed_over_and_foreign_ones_refused(tmp_path, capsys):
    changes = {"checkpoint_every": 2, "steps": 7}
    whole = run(tmp_path, **changes, out=str(tmp_path / "whole"))
    run(tmp_path, stop=5, **changes)
    latest, before = checkpoint.files(tmp_path / "run/checkpoints")
    data = bytearray(latest.read_bytes())
    data[-1000] ^= 1
    latest.write_bytes(data)
    before.write_bytes(before.read_bytes()[:-7])
    assert journal(["verify", str(tmp_path / "run")]) == 1
    resumed = run(tmp_path, **changes)
    assert capsys.readouterr().err.count("ignored") == 2 and torch.equal(weights(resumed), weights(whole))
    run(tmp_path, stop=5, **changes, seed=1, out=str(tmp_path / "other"))
    run(tmp_path, stop=5, **changes, out=str(tmp_path / "mine"))
    for file in checkpoint.files(tmp_path / "other/checkpoints"):
        (tmp_path / "mine/checkpoints" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match=r"is of another run \(run\): remove it"):
        run(tmp_path, **changes, out=str(tmp_path / "mine"))


def test_a_journal_that_was_shortened_does_not_take_a_later_checkpoint(tmp_path, capsys):
    changes = {"checkpoint_every": 2, "steps": 7}
    whole = run(tmp_path, **changes, out=str(tmp_path / "whole"))
    run(tmp_path, stop=5, **changes)
    file = tmp_path / "run/journal.bin"
    file.write_bytes(file.read_bytes()[: read(file).offsets[3]])
    resumed = run(tmp_path, **changes)
    assert "later than 3: ignored" in capsys.readouterr().err
    assert torch.equal(weights(resumed), weights(whole)) and len(read(file).records) == 7


def test_damage_other_than_a_torn_tail_is_refused_and_changes_nothing(tmp_path):
    run(tmp_path, stop=4)
    file = tmp_path / "run/journal.bin"
    data = bytearray(file.read_bytes())
    data[read(file).offsets[1] + 20] ^= 4
    file.write_bytes(data)
    with pytest.raises(ValueError, match=r"record 6 at byte \d+ is damaged.* 1 of them steps"):
        run(tmp_path)
    assert file.read_bytes() == data


def test_rows_without_their_journal_are_refused_and_so_is_resuming_where_it_is_not_wanted(tmp_path):
    run(tmp_path, stop=4)
    with pytest.raises(ValueError, match="holds an unfinished run: give --resume"):
        train(options(tmp_path, resume=False))
    (tmp_path / "run/journal.bin").unlink()
    with pytest.raises(ValueError, match=r"rows of steps but no journal\.bin.*earlier version"):
        run(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 2e-4}, "lr: 0.0001 there, 0.0002 now"),
        ({"max_skipped": 3}, "max_skipped: 10 there, 3 now"),
        ({"weight_decay": 0.1}, "weight_decay: 0.0 there, 0.1 now"),
    ],
)
def test_a_changed_configuration_is_refused_with_its_key(changes, message, tmp_path):
    run(tmp_path, stop=2)
    with pytest.raises(ValueError, match=message):
        train(options(tmp_path, **changes))


def test_other_base_weights_and_other_data_are_refused(tmp_path, monkeypatch):
    base = loading.load("tiny-opt")
    loading.save(base, tmp_path / "base")
    run(tmp_path, stop=2, model=str(tmp_path / "base"))
    with torch.no_grad():
        next(base.model.parameters()).view(-1)[0] += 1
    loading.save(base, tmp_path / "base")
    with pytest.raises(ValueError, match=r"is of another run \(weights: "):
        run(tmp_path, model=str(tmp_path / "base"))
    run(tmp_path, stop=2, out=str(tmp_path / "second"))
    context_data = context.Data
    monkeypatch.setattr(context, "Data", lambda train, *others: context_data(train[::-1], *others))
    with pytest.raises(ValueError, match=r"is of another run \(data: "):
        Loop.of(options(tmp_path, out=str(tmp_path / "second")))


@pytest.mark.parametrize("where", ["journal.bin", "rows.jsonl", ".safetensors.part"])
def test_a_full_disk_ends_the_run_and_room_lets_it_continue_to_the_same_weights(where, tmp_path, monkeypatch):
    changes = {"checkpoint_every": 2}
    whole = run(tmp_path, **changes, out=str(tmp_path / "whole"))
    write, count = os.write, [0]

    def full(descriptor, data):
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(where):
            count[0] += 1
            if count[0] > 5:
                write(descriptor, data[:10])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    def full_file(file, tensors, metadata):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        if where.startswith("."):
            patch.setattr(checkpoint, "_write", full_file)
        with pytest.raises(OSError, match=r"No space left on device: what was .* make room"):
            run(tmp_path, **changes)
    assert read(tmp_path / "run/journal.bin").torn == 0 and not list((tmp_path / "run").glob("**/*.part"))
    assert (tmp_path / "run/rows.jsonl").read_bytes().endswith(b"}\n")
    assert torch.equal(weights(run(tmp_path, **changes)), weights(whole))


ON_A_SMALL_DISK = """
import os, shutil, subprocess, sys
from llm.__main__ import main

def train():
    try:
        return main(["train", *words.split(), "--no-save", "--out", "run"])
    except SystemExit as ended:
        return ended.code

place, kept, finished, words = sys.argv[1:]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "none", place], check=True)
os.chdir(place)
print("status", train())
shutil.copytree("run", kept)
subprocess.run(["mount", "-o", "remount,size=60m", place], check=True)
print("status", train())
shutil.copytree("run", finished)
"""


@pytest.mark.exhaustive
def test_training_fills_a_real_small_file_system_and_goes_on_when_it_has_room(tmp_path):
    """On 3 MiB a checkpoint of 4.3 MB does not fit; where nobody may mount one, the tests above have to do."""
    place = tmp_path / "small"
    place.mkdir()
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = [*namespace, "mount", "-t", "tmpfs", "-o", "size=64k", "none", str(place)]
    if not shutil.which("unshare") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this system does not let an ordinary user mount a file system")
    values = {**QUICK, "checkpoint_every": 4}
    words = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in values.items())
    folders = [str(each) for each in (place, tmp_path / "kept", tmp_path / "finished")]
    command = [*namespace, sys.executable, "-c", ON_A_SMALL_DISK, *folders, words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert re.findall(r"status (\d+)", found.stdout) == ["4", "0"], found.stderr
    assert re.search(r"step-00000004.safetensors: .*what was kept before is there; make room", found.stderr)
    kept = read(tmp_path / "kept/journal.bin")
    assert (len(kept.records), kept.torn) == (4, 0) and not list((tmp_path / "kept").glob("**/*.part"))
    whole = run(tmp_path, checkpoint_every=4)
    finished = read(tmp_path / "finished/journal.bin")
    assert len(finished.records) == 6 and torch.equal(ModuleSpace(rebuild(finished).model).vector(), weights(whole))


def test_an_interrupt_ends_after_the_step_with_everything_saved(tmp_path, capsys):
    session = Loop.of(options(tmp_path, checkpoint_every=100))
    take = session.stepper.step

    def step(*arguments):
        if session.stepper.steps == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return take(*arguments)

    session.stepper.step = step
    with pytest.raises(KeyboardInterrupt):
        session.go()
    assert len(read(tmp_path / "run/journal.bin").records) == 3
    assert [file.name for file in checkpoint.files(tmp_path / "run/checkpoints")] == ["step-00000003.safetensors"]
    assert train(options(tmp_path, checkpoint_every=100))["step"] == 6


@pytest.mark.parametrize("space", [ModuleSpace, InForwardSpace])
def test_what_rounding_leaves_of_a_step(space):
    """Against the whole vectors, and at a rate at which bfloat16 rounds nearly all of it away."""
    for dtype, rate, noise in (
        (torch.float64, 0.01, False),
        (torch.float32, 0.01, False),
        (torch.bfloat16, 3e-4, True),
        (torch.float64, 0.0, True),
    ):
        trainer, model = trainer_of(methods.make("mezo", n=2, epsilon=0.05), dtype, rate, space, decay=0.0)
        start = trainer.space.vector()
        (taken,) = taken_by(trainer, model, range(1), watched=True)
        record, found = taken.record, taken.motion
        plan = trainer.estimator.ask(record.key, ())
        step = trainer.estimator.tell(plan, plan.answers(list(record.losses)), ()).gradient
        meant, done = -rate * trainer.space.dense(step), trainer.space.vector() - start
        assert found.is_noise is noise and found.moved == pytest.approx(float((done != 0).double().mean()))
        if rate and float(done.norm()):
            assert found.cosine == pytest.approx(float(meant @ done / meant.norm() / done.norm()), abs=1e-6)
        assert (dtype != torch.float64) or not rate or found.cosine > 0.9999999


def test_rounding_noise_is_told_once(tmp_path, capsys):
    run(tmp_path, dtype="bfloat16", lr=1e-7, eval_every=2)
    assert capsys.readouterr().err.count("training is rounding noise") == 1
    assert len(rows(tmp_path / "run", "rounding")) == 1
    assert [("cosine" in row) for row in rows(tmp_path / "run", "step")] == [True, False] * 3
    run(tmp_path, lr=1e-4, eval_every=2, out=str(tmp_path / "wide"))
    assert not rows(tmp_path / "wide", "rounding") and rows(tmp_path / "wide", "step")[0]["cosine"] > 0.99


def test_the_journal_commands(tmp_path, capsys):
    run(tmp_path, method="kerzoo:n=2", save=True, schedule="linear", weight_decay=0.1, checkpoint_every=4)
    run(tmp_path, method="kerzoo:n=2", seed=1, out=str(tmp_path / "other"))
    folder, other = str(tmp_path / "run"), str(tmp_path / "other")
    before = {p: p.read_bytes() for p in (tmp_path / "run").glob("**/*") if p.is_file()}
    assert main(["journal", "show", folder, "--last", "2"]) == 0
    shown = capsys.readouterr().out
    assert "LineEstimator" in shown and "6, 0 of them skipped" in shown and str(derive("directions", 0, 5)) in shown
    assert main(["journal", "verify", folder]) == 0
    assert "6 steps and 8 measurements" in capsys.readouterr().out
    assert main(["journal", "replay", folder, "--out", str(tmp_path / "rebuilt")]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    one, two = (checkpoint.weights(loading.load(str(p)).model) for p in (tmp_path / "run/model", tmp_path / "rebuilt"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert main(["journal", "diff", folder, folder]) == 0
    assert main(["journal", "diff", folder, other]) == 1
    assert "the first step that differs is 0" in capsys.readouterr().out
    assert main(["journal", "replay", folder, "--model", str(tmp_path / "rebuilt")]) == 2
    assert "does not have the weights this journal began with" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in before} == before
    torn = read(tmp_path / "run/journal.bin").offsets[-1] + 9  # within the last step
    (tmp_path / "run/journal.bin").write_bytes(before[tmp_path / "run/journal.bin"][:torn])
    assert main(["journal", "verify", folder]) == 1  # the rows tell of a step and of an end that are gone
    assert "not finished" in (said := capsys.readouterr().out) and "damaged     rows.jsonl: line" in said
    assert main(["journal", "replay", folder]) == 1 and "differs from" in capsys.readouterr().out
    assert main(["journal", "show", str(tmp_path / "nowhere")]) == 2


SOAK = """
import soak
assert soak.main(["--instants"]) == 0
assert soak.main(["--instants", "1", "--planted"]) == 1
"""


@pytest.mark.exhaustive
def test_runs_killed_at_seven_instants_end_with_the_same_weights_and_a_replay_that_forgets_to_walk_does_not():
    found = subprocess.run(
        [sys.executable, "-c", SOAK], cwd=ROOT / "tests", capture_output=True, text=True, timeout=300
    )
    told = found.stdout + found.stderr
    assert found.returncode == 0 and "7 of 7 held" in found.stdout and "; 7 were killed" in found.stdout, told
    assert "0 of 1 held" in found.stdout, told
