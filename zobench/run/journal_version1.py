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

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from zobench.random.keys import derive
from zobench.run.journal_format import Damaged, DerivedKeys, JournalError, header_of, parsed, prefix, proved, walk

SHRINK, KEY, MINIBATCH, SKIPPED = 2, 4, 8, 16  # 1 tells a text, as in version 2
SHORT, NUMBERS = struct.Struct("<BHI"), struct.Struct("<ddf")


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
    """What a journal holds; the last `torn` bytes of the file are of a record that was never finished."""

    header: dict[str, Any]
    records: list[RecordVersion1]
    torn: int


def _decode(
    data: bytes, start: int, chain: int, derived: DerivedKeys, weight_decay: float
) -> tuple[RecordVersion1, int]:
    """The record that starts there and where the next one does."""
    (flags, count, step), extra, at = prefix(data, start, SHORT, chain)
    optional = sum(8 for flag in (SHRINK, KEY, MINIBATCH) if flags & flag)
    end = at + NUMBERS.size + optional + 8 * count + extra
    after = proved(data, start, end, chain)
    lr, loss, seconds = NUMBERS.unpack_from(data, at)
    at += NUMBERS.size
    values: dict[int, Any] = {
        SHRINK: lr * weight_decay,
        KEY: derive(*derived.key, step),
        MINIBATCH: derive(*derived.minibatch, step),
    }
    for flag, form in ((SHRINK, "<d"), (KEY, "<Q"), (MINIBATCH, "<Q")):
        if flags & flag:
            (values[flag],), at = struct.unpack_from(form, data, at), at + 8
    coefficients = struct.unpack_from(f"<{count}d", data, at)
    more = parsed(data[end - extra : end], "extra", after) if extra else None
    numbers = (lr, values[SHRINK], values[MINIBATCH], loss, seconds)
    return RecordVersion1(step, values[KEY], coefficients, *numbers, bool(flags & SKIPPED), more), after


def read(file: str | Path) -> ContentsVersion1:
    """Return what a journal holds; the file is not changed.

    Raises:
        JournalError: it is no journal, of another version, or damaged elsewhere than in a torn last record; the message
            names the record and its byte offset.
        OSError: it cannot be read.
    """
    data = Path(file).read_bytes()
    header, at = header_of(data, file, 1)
    derived, decay = DerivedKeys.of(header), header.get("weight_decay")
    if not isinstance(decay, float):
        raise JournalError(f"the header's weight_decay is {decay!r}: wanted a number")
    records: list[RecordVersion1] = []

    def take(start: int, chain: int) -> int:
        record, end = _decode(data, start, chain, derived, decay)
        if record.step != len(records):
            raise Damaged(f"it is of step {record.step}", end)
        records.append(record)
        return end

    end, _ = walk(data, at, file, take)
    return ContentsVersion1(header, records, len(data) - end)
