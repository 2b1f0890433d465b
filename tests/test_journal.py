"""The journal and the folder of a run: what is appended, who may write, and what a full disk leaves."""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from full import fill
from journals import EVALUATION, HEADER, RECORDS, record, written

from zobench import methods
from zobench.identity import restore
from zobench.run.journal import Event, Journal, JournalError, differing, other_stream, read
from zobench.run.lock import FolderInUseError, lock
from zobench.run.records import Run, require_contained, within

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[1]


def test_what_is_read_back_is_what_was_appended(tmp_path):
    file = written(tmp_path)
    contents = read(file)
    assert contents.records == RECORDS and contents.torn == 0
    assert contents.header == HEADER and len(contents.marks) == 6 == len(set(contents.marks))
    again = Journal(file, HEADER)
    assert again.records == RECORDS and again.cut == 0
    again.append(record(5))
    again.close()
    assert read(file).records == [*RECORDS, record(5)]


def test_events_stand_between_the_steps_and_a_journal_may_be_cut_back_to_one(tmp_path):
    journal = Journal(tmp_path / "journal.bin", HEADER)
    for step, one in enumerate(RECORDS):
        journal.note({**EVALUATION, "step": step})
        journal.append(one)
    journal.close()
    wanted = [Event(step, {**EVALUATION, "step": step}) for step in range(5)]
    assert journal.events == wanted == read(tmp_path / "journal.bin").events
    again = Journal(tmp_path / "journal.bin", HEADER)
    again.truncate(5)
    assert again.records == RECORDS
    again.truncate(3)
    assert again.records == RECORDS[:3] and again.events == wanted[:4]  # the one before step 3 stays
    again.append(RECORDS[3])
    again.close()
    assert read(tmp_path / "journal.bin").records == RECORDS[:4]


def test_appends_are_forced_to_disk_every_few_seconds(tmp_path, monkeypatch):
    now, forced = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    journal = Journal(tmp_path / "j", HEADER)
    monkeypatch.setattr(os, "fsync", lambda _: forced.append(now[0]))
    for step, at in enumerate([1.0, 4.9, 5.0, 5.1, 6.0, 10.1, 10.2]):
        now[0] = at
        journal.append(record(step))
    assert forced == [5.1, 10.2]
    journal.note({"kind": "evaluation"})
    journal.close()
    assert forced == [5.1, 10.2, 10.2, 10.2]


def test_a_torn_tail_is_cut_when_the_journal_is_continued_and_not_before(tmp_path):
    file = written(tmp_path)
    torn = file.read_bytes()[:-3]
    file.write_bytes(torn)
    assert read(file).torn > 0 and file.read_bytes() == torn
    journal = Journal(file, HEADER)
    assert journal.cut == read(tmp_path / "journal.bin").torn or journal.cut > 0
    journal.append(RECORDS[4])
    journal.close()
    assert read(file).records == RECORDS


def test_a_header_that_differs_is_named(tmp_path):
    file = written(tmp_path)
    before = file.read_bytes()
    with pytest.raises(JournalError, match=r"estimator: .* there, 'other' now.*--out"):
        Journal(file, {**HEADER, "estimator": "other"})
    with pytest.raises(JournalError, match=r"weights: None there, 'ab' now"):
        Journal(file, {**HEADER, "weights": "ab"})
    Journal(file, {**HEADER, "environment": {"torch": "2"}}).close()
    assert file.read_bytes() == before
    assert differing(HEADER, {**HEADER, "environment": 1, "seed": 2}) == ["seed"]


def test_a_journal_of_another_stream_is_told_from_one_of_another_run(tmp_path):
    there = {**HEADER, "stream": "SFC64 and torch 1", "environment": {"zobench": "0.4.0", "commit": "8e5f375"}}
    file = written(tmp_path, header=there)
    before = file.read_bytes()
    with pytest.raises(
        JournalError,
        match=r"random numbers 'SFC64 and torch 1', .*'Philox 1'.* zobench '0.4.0', commit '8e5f375': continue.*--out",
    ):
        Journal(file, {**there, "stream": "Philox 1", "estimator": "other"})
    assert file.read_bytes() == before and read(file).records == RECORDS
    assert other_stream(there, "SFC64 and torch 1") == ""
    assert "None" in other_stream(HEADER, "Philox 1") and "no version" in other_stream(HEADER, "Philox 1")


def test_steps_come_in_their_order_and_fit_the_format(tmp_path):
    journal = Journal(tmp_path / "j", HEADER)
    with pytest.raises(ValueError, match="the next step is 0, not 1"):
        journal.append(record(1))
    with pytest.raises(ValueError, match="a journal holds 65535"):
        journal.append(record(0, losses=(0.0,) * 70_000))
    journal.append(record(0))
    journal.close()
    assert read(tmp_path / "j").records == [record(0)]


@pytest.mark.parametrize("method", [method.name for method in methods.table()])
def test_every_method_is_restored_from_its_repr(method):
    estimator = methods.make(method)
    assert restore(repr(estimator)) == estimator


def test_restoring_runs_nothing_that_the_text_says(tmp_path):
    for text in (
        f"__import__('os').system('touch {tmp_path}/hacked')",
        f"open('{tmp_path}/hacked', 'w')",
        "estimate(LineEstimator(Gaussian(), CentralStencil(), 0.1), print, 0)",
        "(lambda: 0)()",
        "Gaussian()",
        "Gaussian().__class__",
        "LineEstimator(law=Gaussian(), stencil=KernelStencil(kernel=legendre(100001)), epsilon=0.1)",
        "LineEstimator(law=Gaussian(), stencil=CentralStencil(), epsilon=0.1, n=99999999999)",
        "LineEstimator(*x)",
        "9**9**9**9",
        "(" * 5000,
        "-" * 20_000 + "1",
        "",
    ):
        with pytest.raises(ValueError, match="is not the repr of an estimator"):
            restore(text)
    assert list(tmp_path.iterdir()) == []


FORK = multiprocessing.get_context("fork")  # a child that is forked need not import torch again


def in_a_child(work, *arguments):
    """What a function returns in a process of its own."""
    with ProcessPoolExecutor(1, FORK) as pool:
        return pool.submit(work, *arguments).result(timeout=60)


def hold(folder, held):
    mine = lock(folder)
    held.set()
    time.sleep(60)
    mine.release()


def test_a_second_process_is_refused_and_a_kill_lets_go(tmp_path):
    held = FORK.Event()
    holder = FORK.Process(target=hold, args=(tmp_path, held), daemon=True)
    holder.start()
    assert held.wait(60)
    with pytest.raises(FolderInUseError, match=rf"another process \({holder.pid}\).*--out"):
        lock(tmp_path)
    with pytest.raises(FolderInUseError):
        Run(tmp_path, {"lr": 1})
    assert not (tmp_path / "config.toml").exists()
    holder.kill()
    holder.join()
    mine = lock(tmp_path)
    assert mine is lock(tmp_path) and mine.held
    Run(tmp_path, {"lr": 1}).append({"step": 1})


def test_a_file_at_its_quota_ends_the_run_with_what_was_reached(tmp_path):
    assert "File too large: what was written before is kept" in in_a_child(fill, tmp_path, 20_000)


def in_namespace(folder, size):
    """Commands that mount a file system of this size where only they see it, as an ordinary user may."""
    return [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
    ], f"mount -t tmpfs -o size={size} none {folder}"


def test_a_full_file_system_ends_the_run_with_what_was_reached(tmp_path):
    """On a file system of 64 KiB where mounting one is allowed; elsewhere on the device that is always full."""
    place = tmp_path / "small"
    place.mkdir()
    prefix, mount = in_namespace(place, "64k")
    try:
        allowed = subprocess.run([*prefix, mount], capture_output=True, timeout=60).returncode == 0
    except FileNotFoundError:
        allowed = False
    if allowed:
        command = [*prefix, f"{mount} && PYTHONPATH={ROOT} exec {sys.executable} {ROOT / 'tests/full.py'} {place}"]
        found = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert found.returncode == 0 and "No space left on device: what was written before is kept" in found.stdout
        assert list(place.iterdir()) == []  # what was mounted there is gone
    else:
        run = Run(place, {"lr": 1})
        run._rows_file = Path("/dev/full")
        with pytest.raises(OSError, match="No space left on device"):
            run.append({"step": 1})


def refused(folder):
    if os.getuid() == 0:
        os.setuid(65534)  # to root every folder is writable
    try:
        Run(folder, {"lr": 1})
    except OSError as error:
        return str(error)
    return ""


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Run(tmp_path / "file", {"lr": 1})
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "run"
        folder.mkdir(mode=0o555)
        told = in_a_child(refused, folder)
        assert "Permission denied" in told and str(folder) in told and not list(folder.iterdir())


def test_links_that_lead_out_of_a_folder_are_refused(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("")
    for name in ("rows.jsonl", "checkpoints", "journal.bin", "model/config.json"):
        folder = tmp_path / name.replace("/", "-")
        (folder / name).parent.mkdir(parents=True)
        (folder / name).symlink_to(precious)
        with pytest.raises(ValueError, match="is a link that leads out"):
            Run(folder, {"lr": 1})
    assert precious.read_text() == ""
    require_contained(tmp_path)
    assert within(tmp_path, "a/b") == tmp_path / "a/b"
    for name in ("../x", "a/../../x", "/etc/x", "."):
        with pytest.raises(ValueError, match="leads out of"):
            within(tmp_path, name)


@pytest.mark.parametrize("line", [b"3", b"[1]", b"\xff\xfe", b"[" * 100_000, b"", b"nul", b'{"a": }'])
def test_rows_that_are_no_objects_are_told_with_their_line(line, tmp_path):
    Run(tmp_path, {"lr": 1}).append({"step": 1})
    with (tmp_path / "rows.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: not "):
        Run(tmp_path, {"lr": 1})


def test_an_older_configuration_lacks_what_is_new_and_the_place_may_change(tmp_path):
    Run(tmp_path, {"lr": 1, "out": "a"}).append({"step": 1})
    now = {"lr": 1, "out": "b", "fresh": 3}
    Run(tmp_path, now, defaults={"fresh": 3}, free=("out",))
    with pytest.raises(ValueError, match="fresh: 3 there, 4 now"):
        Run(tmp_path, {**now, "fresh": 4}, defaults={"fresh": 3}, free=("out",))
    (tmp_path / "config.toml").write_text("= 3")
    with pytest.raises(ValueError, match=r"config\.toml: not TOML"):
        Run(tmp_path, now)


def test_environment_of_a_run_that_is_damaged_is_told(tmp_path):
    Run(tmp_path, {"lr": 1}).append({"step": 1})
    (tmp_path / "environment.json").write_text("{")
    with pytest.raises(ValueError, match=r"environment\.json: not JSON"):
        Run(tmp_path, {"lr": 1}).append({"step": 2})
    assert json.loads((tmp_path / "rows.jsonl").read_text()) == {"step": 1}
    assert os.path.exists(tmp_path / ".lock")
