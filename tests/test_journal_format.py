"""The journal's format: its bytes, what is read back, and what damage is told."""

import json
import math
import struct
import tempfile
from binascii import crc_hqx
from itertools import pairwise
from pathlib import Path
from zlib import crc32

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from journals import EVALUATION, HEADER, RECORDS, record, written

from llm.options.journal import main
from zobench import derive
from zobench.layout import Layout, Segment
from zobench.run import journal_format, journal_version1
from zobench.run.journal import Event, Journal, JournalError, Record, describe, read, version_of

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_records_that_are_dropped_swapped_or_repeated_are_told(tmp_path):
    records = [record(i) for i in range(4)]
    file = written(tmp_path, records)
    data, o = file.read_bytes(), [*read(file).offsets, len(file.read_bytes())]
    parts = [data[a:b] for a, b in pairwise(o)]
    for order, number in (([0, 2, 3], 1), ([1, 2, 3], 0), ([0, 2, 1, 3], 1), ([0, 1, 1, 2, 3], 2), ([0, 1, 3], 2)):
        file.write_bytes(data[: o[0]] + b"".join(parts[i] for i in order))
        with pytest.raises(JournalError, match=rf"record {number} at byte {o[number]} "):
            read(file)


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
