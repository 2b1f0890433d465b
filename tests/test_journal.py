"""The journal's format: what is read back, what damage is told, and what a full disk leaves."""

import json
import math
import multiprocessing
import os
import struct
import subprocess
import sys
import tempfile
import time
from binascii import crc_hqx
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import pytest
import torch
from full import fill
from hypothesis import given
from hypothesis import strategies as st

from llm.run.journal import main
from zobench import derive, methods
from zobench.identity import restore
from zobench.layout import Layout, Segment
from zobench.run import journal_format, journal_version1
from zobench.run.journal import Event, Journal, JournalError, Record, describe, differing, read, version_of
from zobench.run.lock import FolderInUseError, lock
from zobench.run.records import Run, require_contained, within

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(__file__).parents[1]
HEADER = {
    "estimator": "LineEstimator(law=Gaussian(), stencil=CentralStencil(), epsilon=0.001, n=1)",
    "keys": {"key": ["directions", 0], "minibatch": ["minibatch", 0]},
    "weight_decay": 0.1,
    "environment": {"torch": "1"},
}


def record(step, **changes):
    keys = {"key": derive("directions", 0, step), "minibatch": derive("minibatch", 0, step)}
    numbers = {"losses": (0.5, -step / 3), "lr": 1e-3, "seconds": 0.25, "checksum": 7 + step}
    return Record(step, **{**keys, **numbers, **changes})


RECORDS = [
    record(0),
    record(1, key=2**63 - 1, minibatch=5),
    record(2, losses=(math.inf,), checksum=0, skipped="losses [inf]: lower --lr"),
    record(3, losses=tuple(map(float, range(20)))),
    record(4),
]
EVALUATION = {"kind": "evaluation", "step": 2, "dev_loss": 0.25, "word": "é"}


def written(folder, records=RECORDS, header=HEADER):
    file = folder / "journal.bin"
    journal = Journal(file, header)
    for one in records[len(journal.records) :]:
        journal.append(one)
    journal.close()
    return file


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


@given(
    st.lists(
        st.tuples(
            st.lists(st.floats(width=64, allow_nan=False), max_size=9),
            st.floats(allow_nan=False, allow_infinity=False),
            st.integers(0, 2**63 - 1),
            st.integers(0, 2**32 - 1),
            st.text(max_size=20),
        ),
        max_size=6,
    )
)
def test_any_numbers_survive_to_the_bit(rows):
    derived, data = journal_format.DerivedKeys.of(HEADER), journal_format.head(HEADER)
    records = [Record(i, key, tuple(c), lr, key // 2, 0.5, sum_, why) for i, (c, lr, key, sum_, why) in enumerate(rows)]
    for one in records:
        data += journal_format.encode(one, int.from_bytes(data[-4:], "little"), derived)
        data += journal_format.encode_event({"kind": "after", "lr": one.lr}, int.from_bytes(data[-4:], "little"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "journal.bin"
        file.write_bytes(data)
        found = read(file)
    assert repr(found.records) == repr(records) and found.torn == 0
    assert found.events == [Event(i + 1, {"kind": "after", "lr": one.lr}) for i, one in enumerate(records)]


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


def test_a_step_of_two_losses_takes_41_bytes_and_of_eight_directions_153(tmp_path):
    """With the layout of OPT-1.3b (388 tensors) and weight decay."""
    names = [f"model.decoder.layers.{i}.self_attn.k_proj.weight" for i in range(388)]
    layout = Layout(tuple(Segment(name, 4_194_304, torch.float32) for name in names))
    header = {**HEADER, "layout": describe(layout)}
    derived, data = journal_format.DerivedKeys.of(header), journal_format.head(header)
    one = len(journal_format.encode(record(7, losses=(math.pi,) * 16), 0, derived))
    assert one == 153 and len(data) + 20_000 * one < 3_200_000
    assert len(journal_format.encode(record(7), 0, derived)) == 41


def test_every_bit_that_flips_is_told_with_its_record(tmp_path):
    file = written(tmp_path)
    data, contents = file.read_bytes(), read(file)
    ends = [*contents.offsets[1:], len(data)]
    for place in range(len(data)):
        prefix = any(start <= place < start + 7 for start in contents.offsets)
        for bit in range(8) if prefix else (place % 8,):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            file.write_bytes(bytes(changed))
            with pytest.raises(JournalError) as told:
                read(file)
            if place >= contents.offsets[0]:
                number = next(i for i, end in enumerate(ends) if place < end)
                assert f"record {number} at byte {contents.offsets[number]} is damaged" in str(told.value)


def test_the_file_cut_anywhere_is_a_torn_tail_and_loses_one_record(tmp_path):
    file = written(tmp_path)
    data, offsets = file.read_bytes(), read(file).offsets
    for length in range(offsets[0], len(data)):
        file.write_bytes(data[:length])
        found = read(file)
        whole = sum(end <= length for end in [*offsets[1:], len(data)])
        assert found.records == RECORDS[:whole] and found.torn == length - [*offsets, len(data)][whole]
    for length in range(offsets[0]):
        file.write_bytes(data[:length])
        with pytest.raises(JournalError):
            read(file)


def test_a_tail_of_zeros_as_a_power_cut_leaves_it_is_torn_too(tmp_path):
    file = written(tmp_path)
    data, offsets = file.read_bytes(), read(file).offsets
    for kept in (offsets[4], offsets[4] + 3, offsets[4] + 20, len(data) - 4):
        file.write_bytes(data[:kept] + b"\0" * (len(data) - kept))
        assert read(file).records == RECORDS[:4]
    file.write_bytes(data + b"\0" * 4096)
    assert read(file).records == RECORDS and read(file).torn == 4096
    file.write_bytes(data[:-3] + b"\0" * 3)  # a torn page leaves more: these are damage
    with pytest.raises(JournalError, match=r"record 4 at byte .* is damaged"):
        read(file)


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


def test_records_that_are_dropped_swapped_or_repeated_are_told(tmp_path):
    records = [record(i) for i in range(4)]
    file = written(tmp_path, records)
    data, o = file.read_bytes(), [*read(file).offsets, len(file.read_bytes())]
    parts = [data[a:b] for a, b in pairwise(o)]
    for order, number in (([0, 2, 3], 1), ([1, 2, 3], 0), ([0, 2, 1, 3], 1), ([0, 1, 1, 2, 3], 2), ([0, 1, 3], 2)):
        file.write_bytes(data[: o[0]] + b"".join(parts[i] for i in order))
        with pytest.raises(JournalError, match=rf"record {number} at byte {o[number]} "):
            read(file)


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


def test_steps_come_in_their_order_and_fit_the_format(tmp_path):
    journal = Journal(tmp_path / "j", HEADER)
    with pytest.raises(ValueError, match="the next step is 0, not 1"):
        journal.append(record(1))
    with pytest.raises(ValueError, match="a journal holds 65535"):
        journal.append(record(0, losses=(0.0,) * 70_000))
    journal.append(record(0))
    journal.close()
    assert read(tmp_path / "j").records == [record(0)]


def test_files_that_are_no_journals_are_told(tmp_path):
    file = tmp_path / "j"
    for data, message in (
        (b"", "not a journal"),
        (b"PK\3\4" + b"x" * 99, "not a journal"),
        (written(tmp_path).read_bytes().replace(b"journal\n\2", b"journal\n\7"), "version 7"),
        (journal_format.MAGIC + b"\2\0\xff\xff\xff\xff", "header is damaged"),
    ):
        file.write_bytes(data)
        with pytest.raises(JournalError, match=message):
            read(file)
    with pytest.raises(JournalError, match="keys"):
        Journal(tmp_path / "k", {"weight_decay": 0.0})
    assert not (tmp_path / "k").exists()


def version_1(steps):
    """A file as commit acd4561 wrote it, of steps (number, flags, coefficients)."""
    text = json.dumps({**HEADER, "weight_decay": 0.1}, separators=(",", ":")).encode()
    data = journal_format.HEAD.pack(journal_format.MAGIC, 1, len(text)) + text
    data += journal_format.CHECK.pack(crc32(data))
    for step, flags, numbers in steps:
        chain = int.from_bytes(data[-4:], "little")
        prefix = struct.pack("<BHI", flags, len(numbers), step)
        whole = prefix + struct.pack("<H", crc_hqx(prefix, chain & 0xFFFF)) + struct.pack("<ddf", 1e-3, 0.7, 0.25)
        whole += struct.pack(f"<{len(numbers)}d", *numbers)
        data += whole + struct.pack("<I", crc32(whole, chain))
    return data


def test_steps_of_version_1_come_in_their_order_and_its_zeros_are_counted(tmp_path):
    file = tmp_path / "journal.bin"
    file.write_bytes(version_1([(0, 0, (0.5,)), (2, 0, (0.5,))]))
    with pytest.raises(JournalError, match=r"record 1 at byte .* is damaged: it is of step 2"):
        journal_version1.read(file)
    data = version_1([(0, 0, (0.5,)), (1, 0, (0.5,))])
    for zeros in (3, 4):
        file.write_bytes(data[:-zeros] + b"\0" * zeros)
        if zeros == 4:
            assert len(journal_version1.read(file).records) == 1
        else:
            with pytest.raises(JournalError, match=r"record 1 at byte .* is damaged"):
                journal_version1.read(file)


def test_version_1_is_shown_and_verified_and_says_what_to_do_for_replay(tmp_path, capsys):
    """Two steps of one direction, the second skipped."""
    file = tmp_path / "journal.bin"
    data = version_1([(0, 0, (0.5,)), (1, 16, ())])
    file.write_bytes(data)
    assert version_of(file) == 1
    found = journal_version1.read(file).records
    assert [one.coefficients for one in found] == [(0.5,), ()] and found[1].skipped and found[0].loss == 0.7
    assert main(["show", str(tmp_path)]) == 0 and "install zobench at commit acd4561" in capsys.readouterr().out
    assert main(["verify", str(tmp_path)]) == 0 and "2 records of version 1" in capsys.readouterr().out
    for ask in (lambda: read(file), lambda: Journal(file, HEADER)):
        with pytest.raises(JournalError, match="version 1 of the journal, and this program writes 2"):
            ask()
    assert main(["replay", str(tmp_path)]) == 2 and "install zobench at commit acd4561" in capsys.readouterr().err
    data = bytearray(data)
    data[-9] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(JournalError, match=r"record 1 .* is damaged"):
        journal_version1.read(file)


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


def test_the_bytes_of_a_record_are_spelled_out():
    """Flags are text 1, key 2, minibatch 4, skipped 8, event 16; a checksum goes on from the one before."""
    derived = journal_format.DerivedKeys(("k",), ("m",))
    one = Record(3, 7, (0.5, 2.0), 0.25, 9, 1.5, 11, "no")
    head = struct.pack("<BHH", 1 | 2 | 4 | 8, 2, 2)
    whole = head + struct.pack("<H", crc_hqx(head, 0x5678))
    whole += struct.pack("<dfIQQdd", 0.25, 1.5, 11, 7, 9, 0.5, 2.0) + b"no"
    assert journal_format.encode(one, 0x12345678, derived) == whole + struct.pack("<I", crc32(whole, 0x12345678))
    plain = one._replace(key=derive("k", 3), minibatch=derive("m", 3), skipped="")
    head = struct.pack("<BH", 0, 2)
    whole = head + struct.pack("<H", crc_hqx(head, 0x5678)) + struct.pack("<dfIdd", 0.25, 1.5, 11, 0.5, 2.0)
    assert journal_format.encode(plain, 0x12345678, derived) == whole + struct.pack("<I", crc32(whole, 0x12345678))
    head = struct.pack("<BHH", 16 | 1, 0, 7)
    whole = head + struct.pack("<H", crc_hqx(head, 0x5678)) + b'{"a":1}'
    assert journal_format.encode_event({"a": 1}, 0x12345678) == whole + struct.pack("<I", crc32(whole, 0x12345678))
    assert Record(1, 2) == Record(1, 2, (), 0.0, 0, 0.0, 0, "")


def test_damage_counts_the_records_before_it(tmp_path):
    journal = Journal(tmp_path / "j", HEADER)
    for step in range(2):
        journal.append(record(step))
    journal.note(EVALUATION)
    assert [event.step for event in journal.events] == [2] and journal.events[0].body == EVALUATION
    journal.append(record(2))
    journal.close()
    data = bytearray((tmp_path / "j").read_bytes())
    data[-5] ^= 1
    (tmp_path / "j").write_bytes(bytes(data))
    with pytest.raises(JournalError, match=r"record 3 at byte .*; the 3 records before it are sound, 2 of them steps"):
        read(tmp_path / "j")
    with pytest.raises(JournalError, match=r"long: None there, 'x{76}\.\.\. now"):
        Journal(written(tmp_path), {**HEADER, "long": "x" * 200})
