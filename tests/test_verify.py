"""A run folder as a whole: every damage is told, and what is rebuilt is what was there."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from interrupted import gone

from llm.__main__ import main
from llm.loop import train as training
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.options.train import TrainOptions
from llm.run import checkpoint
from llm.run.reported import disagreements
from zobench.run.journal import Journal, read
from zobench.run.records import Run

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"steps": 6, "train": 20, "dev": 10, "test": 10, "max_tokens": 16, "batch": 4, "eval_every": 2, "lr": 1e-3}
QUICK |= {"checkpoint_every": 3, "baselines": False, "seed": 2}


def options(folder, **changes):
    return TrainOptions(**{**QUICK, "out": str(folder), **changes})


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run that selects an earlier step than its last."""
    folder = tmp_path_factory.mktemp("verify") / "whole"
    final = train(options(folder))
    assert final["selected_step"] < final["step"] == 6
    return folder


@pytest.fixture(scope="module")
def first_order(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verify") / "first"
    train(options(folder, method="adamw", lr=3e-4))
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "run"))


def verified(folder, capsys, *more):
    """The exit status, and the state of each file."""
    capsys.readouterr()
    status = main(["journal", "verify", str(folder), *more])
    lines = [line for line in capsys.readouterr().out.splitlines() if ": " in line]
    return status, {line[12:].partition(":")[0]: line[:12].strip() for line in lines}


def flip(file, at=-1000):
    data = bytearray(file.read_bytes())
    data[at] ^= 64
    file.write_bytes(data)


def lasting(folder):
    """The bytes of the weights, and the rows without times and what is seen of a step only when it is taken."""
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    kept = [
        {k: v for k, v in row.items() if k not in ("seconds", "peak_mb", "moved", "cosine", "length")} for row in rows
    ]
    return (folder / "model/model.safetensors").read_bytes(), sorted(map(json.dumps, kept))


def test_a_run_that_is_whole_is_ok_file_by_file(whole, capsys):
    status, found = verified(whole, capsys)
    assert status == 0 and found.pop("environment.json") == found.pop("model/README.md") == "not checked"
    names = {"config.toml", "journal.bin", "rows.jsonl", "model/model.safetensors", "model/config.json"}
    assert names < found.keys() and set(found.values()) == {"ok"} and sum("checkpoints/" in name for name in found) == 2
    assert main(["journal", "verify", str(whole), "--replay"]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    assert train(options(whole))["kind"] == "final"


FILES = [
    "journal.bin",
    "rows.jsonl",
    "config.toml",
    "model/model.safetensors",
    "model/config.json",
    "model/checksums.json",
]
FILES += ["checkpoints/step-00000006.safetensors"]


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_flipped_or_gone_is_told(name, copy, capsys):
    file = copy / name
    data = file.read_bytes()
    flips = [partial(flip, file, len(data) * k // 8) for k in range(8)] if name == "config.toml" else []
    flips.append(partial(flip, file, len(data) // 3))
    for damage in (lambda: file.write_bytes(data[: len(data) // 2]), *flips, file.unlink):
        file.write_bytes(data)
        damage()
        if name.startswith("checkpoints") and not file.exists():
            continue  # the last two are kept, and a run needs none
        status, found = verified(copy, capsys)
        assert status == 1 and {"damaged", "missing"} & set(found.values()), damage
    file.write_bytes(data)
    assert verified(copy, capsys)[0] == 0


def test_selected_weights_that_are_gone_are_told_until_they_are_rebuilt(whole, tmp_path, capsys):
    gone(Loop.of(options(tmp_path / "run")), stop=5)
    assert verified(tmp_path / "run", capsys)[0] == 0
    (tmp_path / "run/best.safetensors").unlink()
    status, found = verified(tmp_path / "run", capsys)
    assert status == 1 and found["best.safetensors"] == "missing"
    train(options(tmp_path / "run"))
    assert verified(tmp_path / "run", capsys)[0] == 0 and lasting(tmp_path / "run") == lasting(whole)


@pytest.mark.parametrize("name", ["model/model.safetensors", "model/config.json", "model", "journal.bin"])
def test_a_finished_run_that_is_damaged_says_so_and_the_way_out(name, copy, whole, capsys):
    def gone():
        shutil.rmtree(copy / name) if name == "model" else (copy / name).unlink()

    for damage in (gone, *([] if name == "model" else [lambda: flip(copy / name, 300)])):
        shutil.copytree(whole, copy, dirs_exist_ok=True)
        damage()
        with pytest.raises(ValueError, match=r"holds a finished run, but .* is (damaged|missing) .* --out") as told:
            train(options(copy))
        assert name in str(told.value)
        if name != "journal.bin":
            assert f"journal replay {copy} --out {copy / 'model'}" in str(told.value)
            assert main(["journal", "replay", str(copy), "--out", str(copy / "model")]) == 0
            assert train(options(copy))["kind"] == "final" and verified(copy, capsys)[0] == 0
            assert lasting(copy) == lasting(whole)


def test_the_model_of_another_run_is_not_this_runs(copy, tmp_path, capsys):
    train(options(tmp_path / "other", seed=3))
    shutil.rmtree(copy / "model")
    shutil.copytree(tmp_path / "other/model", copy / "model")
    status, found = verified(copy, capsys)
    assert status == 1 and found["model/checksums.json"] == "damaged"
    with pytest.raises(ValueError, match="and the run selected"):
        train(options(copy))


def test_lost_rows_are_written_again_and_the_weights_are_the_same(copy, whole):
    lines = (copy / "rows.jsonl").read_text().splitlines(keepends=True)
    for keep in (0, 2, len(lines) // 2, len(lines) - 1):
        (copy / "rows.jsonl").write_text("".join(lines[:keep]))
        events = len(read(copy / "journal.bin").events)
        train(options(copy))
        assert lasting(copy) == lasting(whole) and len(read(copy / "journal.bin").events) == events
    (copy / "rows.jsonl").unlink()
    train(options(copy))
    assert lasting(copy) == lasting(whole)


def test_lost_rows_of_a_first_order_run_are_written_again(first_order, tmp_path):
    copy = Path(shutil.copytree(first_order, tmp_path / "run"))
    (copy / "rows.jsonl").unlink()
    train(options(copy, method="adamw", lr=3e-4))
    assert lasting(copy) == lasting(first_order)


def test_rows_that_say_otherwise_than_the_journal_stop_a_run_that_goes_on(copy, whole, capsys):
    lines = (whole / "rows.jsonl").read_text().splitlines(keepends=True)
    rows = [json.loads(line) for line in lines]
    at = next(i for i, row in enumerate(rows) if row["kind"] == "evaluation" and row["step"] == 2)
    step = next(i for i, row in enumerate(rows) if row["kind"] == "step")
    changed = {
        "dev_loss": (at, {**rows[at], "dev_loss": 0.001}),
        "kind": (at, {**rows[at], "kind": "evaluatioo"}),
        "step": (step, {**rows[step], "step": 3}),
        "lr": (step, {**rows[step], "lr": 2.0}),
        "train_loss": (step, {**rows[step], "train_loss": rows[step]["train_loss"] * 2}),
        "skipped": (step, {**rows[step], "kind": "skipped", "reason": "x"}),
    }
    for name, (number, row) in changed.items():
        for last in (len(lines), len(lines) - 1):  # finished, and as if the final row were not there yet
            damaged = [*lines[:number], json.dumps(row) + "\n", *lines[number + 1 : last]]
            (copy / "rows.jsonl").write_text("".join(damaged))
            with pytest.raises(ValueError, match=r"rows.jsonl is damaged .* remove it"):
                train(options(copy))
            assert verified(copy, capsys)[1]["rows.jsonl"] == "damaged", name
    for damaged in ([*lines[:at], *lines[at + 1 :]], [*lines, lines[-1]]):
        (copy / "rows.jsonl").write_text("".join(damaged))
        assert verified(copy, capsys)[1]["rows.jsonl"] == "damaged"
    (copy / "rows.jsonl").unlink()
    train(options(copy))
    assert lasting(copy) == lasting(whole)


def test_a_kill_may_leave_the_last_of_the_journal_without_rows(whole):
    contents, rows = read(whole / "journal.bin"), Run(whole, {}, look=True, free=rows_free(whole)).rows
    for keep in range(len(rows) + 1):
        assert not disagreements(rows[:keep], contents)
        assert bool(disagreements(rows[:keep], contents, whole=True)) == (keep < len(rows))
    short = replace(contents, records=contents.records[:3], events=[e for e in contents.events if e.step <= 3])
    assert not disagreements([row for row in rows if row["kind"] != "final"], short)
    assert disagreements(rows, short)  # an end of which the journal does not know


def rows_free(folder):
    """Every name of a configuration, so that rows can be looked at."""
    return frozenset(line.partition(" ")[0] for line in (folder / "config.toml").read_text().splitlines())


def test_without_a_journal_rows_decide_nothing_but_that_the_run_has_ended(whole, tmp_path, capsys):
    train(options(tmp_path / "run", journal=False))
    kept = lasting(tmp_path / "run")[0]
    assert kept == lasting(whole)[0]
    file = tmp_path / "run/rows.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    best = next(i for i, line in enumerate(lines) if '"evaluation"' in line)
    lines[best] = json.dumps({**json.loads(lines[best]), "dev_loss": 1e-9}) + "\n"
    file.write_text("".join(lines[:-1]))
    assert train(options(tmp_path / "run", journal=False))["selected_step"] > 0
    assert lasting(tmp_path / "run")[0] == kept
    assert verified(tmp_path / "run", capsys)[1]["rows.jsonl"] == "not checked"
    flip(tmp_path / "run/model/model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors is damaged .* remove .*rows.jsonl"):
        train(options(tmp_path / "run", journal=False))
    file.unlink()
    train(options(tmp_path / "run", journal=False))
    assert lasting(tmp_path / "run")[0] == kept


def test_a_run_of_before_there_were_fingerprints_is_read_and_says_that_nothing_is_checked(copy, capsys):
    for file in (copy / "model").iterdir():
        if file.name == "checksums.json":
            file.unlink()
    contents = read(copy / "journal.bin")
    (copy / "journal.bin").unlink()
    journal = Journal(copy / "journal.bin", contents.header)
    waiting = list(contents.events)
    for record in (*contents.records, None):
        while waiting and (record is None or waiting[0].step <= record.step):
            event = waiting.pop(0)
            journal.note({k: v for k, v in event.body.items() if k != "fingerprint"})
        if record:
            journal.append(record)
    journal.close()
    shutil.rmtree(copy / "checkpoints")
    lines = [json.loads(line) for line in (copy / "rows.jsonl").read_text().splitlines()]
    lines[-1].pop("fingerprint")
    (copy / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    assert train(options(copy))["kind"] == "final"
    assert "model/ was not checked" in capsys.readouterr().out
    status, found = verified(copy, capsys)
    assert status == 0 and found["model"] == "not checked"


def test_a_second_run_that_waited_while_the_first_ended_writes_nothing(tmp_path, monkeypatch):
    for changes in ({}, {"journal": False}, {"method": "zero-shot"}):
        folder, prepare = tmp_path / repr(changes), training.prepare

        def late(given, test, folder=folder, prepare=prepare, changes=changes):
            context = prepare(given, test)
            with monkeypatch.context() as patch:
                patch.setattr(training, "prepare", prepare)
                train(options(folder, **changes))  # the other process, from its beginning to its end
            return context

        with monkeypatch.context() as patch:
            patch.setattr(training, "prepare", late)
            assert train(options(folder, **changes))["kind"] == "final"
        rows = [json.loads(line)["kind"] for line in (folder / "rows.jsonl").read_text().splitlines()]
        assert rows.count("final") == 1 and rows.count("evaluation") == (0 if "method" in changes else 4)


def test_a_replay_leaves_a_torn_row_out(copy, capsys):
    data = (copy / "rows.jsonl").read_bytes()
    (copy / "rows.jsonl").write_bytes(data[:-20])
    assert main(["journal", "replay", str(copy)]) == 0
    assert "equal to the bit" in capsys.readouterr().out


class Killed(BaseException):
    """As if the process had ended."""


WRITES = [("zobench.run.journal", "write_all"), ("zobench.run.records", "write_all"), ("llm.run.checkpoint", "_write")]


def test_a_first_order_run_killed_after_any_write_loses_no_row(first_order, tmp_path, monkeypatch):
    """After the n-th write of journal, rows or checkpoints, in turn, and whatever the run does then."""
    wanted, count = lasting(first_order), [0]

    def dying(write, at):
        def written(*arguments):
            write(*arguments)
            count[0] += 1
            if count[0] == at:
                raise Killed

        return written

    at, given = 1, {"method": "adamw", "lr": 3e-4}
    while True:
        folder, count[0] = tmp_path / str(at), 0
        with monkeypatch.context() as patch:
            for module, name in WRITES:
                whole = __import__(module, fromlist=[name])
                patch.setattr(whole, name, dying(getattr(whole, name), at))
            patch.setattr("zobench.run.journal.truncate_back", kept_as_written)
            patch.setattr("zobench.run.records.truncate_back", kept_as_written)
            try:
                Loop.of(options(folder, **given)).go()
                break
            except Killed:
                pass
        train(options(folder, **given))
        assert lasting(folder) == wanted, at
        at += 5
    assert at > 20


def kept_as_written(*_):
    """A kill cuts nothing back."""
    from contextlib import nullcontext

    return nullcontext()


def test_an_export_is_verified_too_and_refuses_what_is_damaged(copy, tmp_path, capsys):
    def exported(*more):
        try:
            return main(["export", str(copy), "--to", str(tmp_path / "out"), "--quiet", *more])
        except SystemExit as stopped:
            return stopped.code

    for name in ("model/model.safetensors", "journal.bin"):
        data = (copy / name).read_bytes()
        renamed = data.replace(b"layers.0.fc1.weight", b"layers.0.fcX.weight")
        for damaged in (
            data[: len(data) // 2],
            bytes([data[0] ^ 1]) + data[1:],
            *([renamed] if renamed != data else []),
        ):
            (copy / name).write_bytes(damaged)
            assert exported() == 2 and name in capsys.readouterr().err and not (tmp_path / "out").exists()
        (copy / name).write_bytes(data)
    assert exported() == 0
    status, found = verified(tmp_path / "out", capsys)
    assert status == 0 and found["zobench/journal.bin"] == found["out/model.safetensors"] == "ok"
    assert main(["journal", "verify", str(tmp_path / "out"), "--replay"]) == 0
    assert "equal to the bit" in capsys.readouterr().out
    for name in ("model.safetensors", "zobench/journal.bin", "zobench/config.toml", "checksums.json"):
        data = (tmp_path / "out" / name).read_bytes()
        flip(tmp_path / "out" / name, len(data) // 2)
        assert verified(tmp_path / "out", capsys)[0] == 1, name
        (tmp_path / "out" / name).write_bytes(data)
    shutil.rmtree(tmp_path / "out")
    assert exported("--dtype", "bfloat16") == 0 and verified(tmp_path / "out", capsys)[0] == 0


def test_damaged_best_weights_and_checkpoints_give_the_same_end(tmp_path, whole, capsys):
    def stop(step):
        loop = Loop.of(options(tmp_path / "run"))
        take = loop.stepper.step
        loop.stepper.step = lambda *a: (
            (_ for _ in ()).throw(KeyboardInterrupt) if loop.stepper.steps == step else take(*a)
        )
        with pytest.raises(KeyboardInterrupt):
            loop.go()

    stop(5)
    assert verified(tmp_path / "run", capsys)[1]["best.safetensors"] == "ok"
    flip(tmp_path / "run/best.safetensors")
    for file in checkpoint.files(tmp_path / "run/checkpoints"):
        flip(file)
    found = verified(tmp_path / "run", capsys)[1]
    assert found["best.safetensors"] == found["checkpoints/step-00000003.safetensors"] == "damaged"
    train(options(tmp_path / "run"))
    assert lasting(tmp_path / "run") == lasting(whole)
