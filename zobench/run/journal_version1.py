"""Version 1 of the journal, which held coefficients: read only, to show and to verify.

    file    magic (16 bytes), version u16, length u32, header (JSON of that length), crc32 u32
    record  flags u8, count u16, step u32, [length u16 of extra], check u16,
            lr f64, loss f64, seconds f32, [shrink f64], [key u64], [minibatch u64],
            count coefficients f64, [extra], crc32 u32

Little-endian; what is in brackets is there if the flags say so. The checksums are chained: that of a record goes on
from that of the record before, the first from that of the header, so that a record that was dropped, swapped or
repeated is noticed. `check` is a CRC-16 of what stands before it, so that a damaged length is not taken for a torn
tail. Keys are stored only where they are not derive(*names, step) with the names of the header, shrink only where it is
not lr * weight_decay. A step of one direction takes 41 bytes, one of 8 takes 97.
"""

import json
import math
import struct
from binascii import crc_hqx
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from zobench.random.keys import derive
from zobench.run.journal_format import JournalError, header_of

EXTRA, SHRINK, KEY, MINIBATCH, SKIPPED = 1, 2, 4, 8, 16
LENGTH, SHORT, NUMBERS, CHECK = (struct.Struct("<" + f) for f in ("H", "BHI", "ddf", "I"))
TORN_ZEROS = 4  # so many zero bytes at the end are a tail that a power cut never let arrive


class RecordVersion1(NamedTuple):
    """One step: x <- (1 - shrink) x - lr sum_i coefficients_i u_i(key), or none if it was `skipped`.

    `minibatch` is the key the examples were drawn by, `loss` the mean of the losses looked at (nats), `seconds` the
    time of the step (kept as float32); `extra` is JSON: a probe's choice, or why the step was skipped.
    """

    step: int
    key: int
    coefficients: tuple[float, ...] = ()
    lr: float = 0.0
    shrink: float = 0.0
    minibatch: int = 0
    loss: float = math.nan
    seconds: float = 0.0
    skipped: bool = False
    extra: Mapping[str, Any] | None = None


@dataclass(frozen=True, eq=False)
class ContentsVersion1:
    """What a journal holds: `chain` are the checksums before each record and after the last; the last `torn` bytes of
    the file are of a record that was never finished.
    """

    header: dict[str, Any]
    records: list[RecordVersion1]
    offsets: list[int]
    chain: list[int]
    torn: int


class DerivedVersion1(NamedTuple):
    """What need not be stored: keys that are derive(*names, step), and a shrink that is lr * weight_decay."""

    key: tuple[int | str, ...]
    minibatch: tuple[int | str, ...]
    weight_decay: float

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> "DerivedVersion1":
        """Return what a header tells: `keys` with the names of key and minibatch, and `weight_decay`.

        Raises:
            JournalError: it does not tell them.
        """
        found, decay = header.get("keys"), header.get("weight_decay")
        if not isinstance(found, dict) or not all(_is_path(found.get(name)) for name in ("key", "minibatch")):
            raise JournalError(f"the header's keys are {found!r}: wanted the names of key and minibatch")
        if not isinstance(decay, float):
            raise JournalError(f"the header's weight_decay is {decay!r}: wanted a number")
        return cls(tuple(found["key"]), tuple(found["minibatch"]), decay)


def _is_path(names: Any) -> bool:
    return isinstance(names, list) and all(type(name) in (int, str) for name in names)


class _Torn(Exception):
    """The data end within the record."""


class _Damaged(Exception):
    """(reason, where the record would end)."""


def _decode(data: bytes, start: int, chain: int, derived: DerivedVersion1) -> tuple[RecordVersion1, int]:
    """The record that starts there and where the next one does."""
    if start + SHORT.size + LENGTH.size > len(data):
        raise _Torn
    flags, count, step = SHORT.unpack_from(data, start)
    at = start + SHORT.size
    extra = 0
    if flags & EXTRA:
        if at + 2 * LENGTH.size > len(data):
            raise _Torn
        (extra,), at = LENGTH.unpack_from(data, at), at + LENGTH.size
    (check,) = LENGTH.unpack_from(data, at)
    if check != crc_hqx(data[start:at], chain & 0xFFFF):
        raise _Damaged("its first bytes do not have their checksum, or a record before it is missing", at + LENGTH.size)
    at += LENGTH.size
    optional = sum(8 for flag in (SHRINK, KEY, MINIBATCH) if flags & flag)
    end = at + NUMBERS.size + optional + 8 * count + extra
    if end + CHECK.size > len(data):
        raise _Torn
    if CHECK.unpack_from(data, end) != (crc32(data[start:end], chain),):
        raise _Damaged("it does not have its checksum", end + CHECK.size)
    lr, loss, seconds = NUMBERS.unpack_from(data, at)
    at += NUMBERS.size
    values: dict[int, Any] = {
        SHRINK: lr * derived.weight_decay,
        KEY: derive(*derived.key, step),
        MINIBATCH: derive(*derived.minibatch, step),
    }
    for flag, form in ((SHRINK, "<d"), (KEY, "<Q"), (MINIBATCH, "<Q")):
        if flags & flag:
            (values[flag],), at = struct.unpack_from(form, data, at), at + 8
    coefficients = struct.unpack_from(f"<{count}d", data, at)
    more = _json(data[end - extra : end], end + CHECK.size) if extra else None
    numbers = (lr, values[SHRINK], values[MINIBATCH], loss, seconds)
    return RecordVersion1(step, values[KEY], coefficients, *numbers, bool(flags & SKIPPED), more), end + CHECK.size


def _json(text: bytes, end: int) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise _Damaged("its extra is no JSON object", end)
    return found


def read(file: str | Path) -> ContentsVersion1:
    """Return what a journal holds; the file is not changed.

    Raises:
        JournalError: it is no journal, of another version, or damaged elsewhere than in a torn last record; the message
            names the record and its byte offset.
        OSError: it cannot be read.
    """
    data = Path(file).read_bytes()
    header, at = header_of(data, file, 1)
    derived = DerivedVersion1.of(header)
    records: list[RecordVersion1] = []
    offsets, chain = [], [CHECK.unpack_from(data, at - CHECK.size)[0]]
    written = len(data.rstrip(b"\0"))
    while at < len(data):
        try:
            record, end = _decode(data, at, chain[-1], derived)
            if record.step != len(records):
                raise _Damaged(f"it is of step {record.step}", end)
        except _Torn:
            break
        except _Damaged as damage:
            reason, end = damage.args
            if len(data) - written >= TORN_ZEROS and written < end:
                break
            raise JournalError(
                f"{file}: record {len(records)} at byte {at} is damaged: {reason}; the {len(records)} records before "
                "it are sound. Bring the file back from a copy, or give another --out"
            ) from None
        records.append(record)
        offsets.append(at)
        chain.append(CHECK.unpack_from(data, end - CHECK.size)[0])
        at = end
    return ContentsVersion1(header, records, offsets, chain, len(data) - at)
