"""The format of a journal: what every step saw, and what else decided about weights, in an append-only file.

    file    magic (16 bytes), version u16, length u32, header (JSON of that length), crc32 u32
    step    flags u8, count u16, [length u16 of text], check u16, lr f64, seconds f32, checksum u32,
            [key u64], [minibatch u64], count losses f64, [text], crc32 u32
    event   flags u8, 0 u16, length u16, check u16, text (a JSON object), crc32 u32

Little-endian; what is in brackets is there if the flags say so. Losses are the distinct answers of all rounds of the
step, in the order of its plans; `checksum` is that of the coefficients that were made of them, so that a changed
estimator is noticed; the text of a step says why it was skipped. The checksums at the ends are chained: that of a
record goes on from that of the record before, the first from that of the header, so that a record that was dropped,
swapped or repeated is noticed. `check` is a CRC-16 of what stands before it, so that a damaged length is not taken for
a torn tail. The number of a step is its place among the steps, and keys are stored only where they are not
derive(*names, step) with the names of the header. A step of two losses takes 41 bytes, one of 16 takes 153.
"""

import json
import struct
from binascii import crc_hqx
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from zobench.random.keys import derive
from zobench.run.reading import file_bytes

MAGIC, VERSION = b"zobench journal\n", 2
LOSSES, TEXT_BYTES = 0xFFFF, 0xFFFF
TEXT, KEY, MINIBATCH, SKIPPED, EVENT = 1, 2, 4, 8, 16
HEAD, LENGTH, SHORT, NUMBERS, CHECK = (struct.Struct("<" + f) for f in ("16sHI", "H", "BH", "dfI", "I"))
TORN_ZEROS = 4  # so many zero bytes at the end are a tail that a power cut never let arrive


class JournalError(ValueError):
    """The file is damaged, or no journal; the message names the record and its byte offset."""


class Record(NamedTuple):
    """One step, as it was seen: the key, the distinct answers of its rounds, the learning rate, the key by which the
    minibatch was drawn, the seconds it took (kept as float32), and the checksum of its coefficients.

    `skipped` says why the step was not taken, and is empty where it was.
    """

    step: int
    key: int
    losses: tuple[float, ...] = ()
    lr: float = 0.0
    minibatch: int = 0
    seconds: float = 0.0
    checksum: int = 0
    skipped: str = ""


class Event(NamedTuple):
    """What else was decided, between steps: `step` is that of the next one, `body` JSON with a "kind"."""

    step: int
    body: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Contents:
    """What a journal holds: `marks` are the checksums before the first step and after each; the last `torn` bytes of
    the file are of a record that was never finished, which goes on from `chain`.
    """

    header: dict[str, Any]
    records: list[Record] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    chain: int = 0
    torn: int = 0


class DerivedKeys(NamedTuple):
    """What need not be stored: keys that are derive(*names, step)."""

    key: tuple[int | str, ...]
    minibatch: tuple[int | str, ...]

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> "DerivedKeys":
        """Read it from `keys` of a header.

        Raises:
            JournalError: it does not tell them.
        """
        keys = header.get("keys")
        if not isinstance(keys, dict) or not all(_is_path(keys.get(name)) for name in cls._fields):
            raise JournalError(f"the header's keys are {keys!r}: give the names of key and minibatch")
        return cls(tuple(keys["key"]), tuple(keys["minibatch"]))


def _is_path(names: Any) -> bool:
    return isinstance(names, list) and all(type(name) in (int, str) for name in names)


def encode(record: Record, chain: int, derived: DerivedKeys) -> bytes:
    """Return the bytes of a step after a record whose checksum is `chain`.

    Raises:
        ValueError: more losses or a longer text than the format holds.
    """
    text = record.skipped.encode()
    if len(record.losses) > LOSSES or len(text) > TEXT_BYTES:
        raise ValueError(
            f"step {record.step} has {len(record.losses)} losses and {len(text)} bytes of text: a journal holds "
            f"{LOSSES} and {TEXT_BYTES}; give fewer directions, or --no-journal"
        )
    optional = (
        (KEY, record.key != derive(*derived.key, record.step), record.key),
        (MINIBATCH, record.minibatch != derive(*derived.minibatch, record.step), record.minibatch),
    )
    flags = sum(flag for flag, there, _ in optional if there) | (TEXT | SKIPPED if text else 0)
    body = NUMBERS.pack(record.lr, record.seconds, record.checksum)
    body += b"".join(struct.pack("<Q", key) for _, there, key in optional if there)
    body += struct.pack(f"<{len(record.losses)}d", *record.losses)
    return _framed(flags, len(record.losses), body, text, chain)


def encode_event(body: Mapping[str, Any], chain: int) -> bytes:
    """Return the bytes of an event after a record whose checksum is `chain`.

    Raises:
        ValueError: it is longer than the format holds.
    """
    text = json.dumps(body, separators=(",", ":")).encode()
    if len(text) > TEXT_BYTES:
        raise ValueError(f"an event has {len(text)} bytes: a journal holds {TEXT_BYTES}")
    return _framed(EVENT | TEXT, 0, b"", text, chain)


def _framed(flags: int, count: int, body: bytes, text: bytes, chain: int) -> bytes:
    prefix = SHORT.pack(flags, count) + (LENGTH.pack(len(text)) if flags & TEXT else b"")
    whole = prefix + LENGTH.pack(crc_hqx(prefix, chain & 0xFFFF)) + body + text
    return whole + CHECK.pack(crc32(whole, chain))


class Torn(Exception):
    """The data end within the record."""


class Damaged(Exception):
    """(reason, where the record would end)."""


class _Frame(NamedTuple):
    flags: int
    losses: int
    body: int
    text: bytes
    end: int


def prefix(data: bytes, start: int, short: struct.Struct, chain: int) -> tuple[tuple[int, ...], int, int]:
    """Return the numbers that a record begins with, the length of its text, and where its body starts.

    Raises:
        Torn: the data end before.
        Damaged: they do not have their checksum.
    """
    if start + short.size + LENGTH.size > len(data):
        raise Torn
    numbers, at, length = short.unpack_from(data, start), start + short.size, 0
    if numbers[0] & TEXT:
        if at + 2 * LENGTH.size > len(data):
            raise Torn
        (length,), at = LENGTH.unpack_from(data, at), at + LENGTH.size
    (check,) = LENGTH.unpack_from(data, at)
    if check != crc_hqx(data[start:at], chain & 0xFFFF):
        raise Damaged("its first bytes do not have their checksum, or a record before it is missing", at + LENGTH.size)
    return numbers, length, at + LENGTH.size


def proved(data: bytes, start: int, end: int, chain: int) -> int:
    """Return where a record ends whose checksum stands at `end`.

    Raises:
        Torn: the data end before.
        Damaged: it does not have its checksum.
    """
    if end + CHECK.size > len(data):
        raise Torn
    if CHECK.unpack_from(data, end) != (crc32(data[start:end], chain),):
        raise Damaged("it does not have its checksum", end + CHECK.size)
    return end + CHECK.size


def parsed(text: str | bytes, what: str, end: int) -> dict[str, Any]:
    """Return the JSON object of a record that ends there.

    Raises:
        Damaged: it is none.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Damaged(f"its {what} is no JSON object", end)
    return body


def _frame(data: bytes, start: int, chain: int) -> _Frame:
    """The record that starts there, its checksums proved."""
    (flags, count), length, at = prefix(data, start, SHORT, chain)
    keys = sum(8 for flag in (KEY, MINIBATCH) if flags & flag)
    end = at + length + (0 if flags & EVENT else NUMBERS.size + keys + 8 * count)
    return _Frame(flags, count, at, data[end - length : end], proved(data, start, end, chain))


def _step(data: bytes, frame: _Frame, step: int, derived: DerivedKeys) -> Record:
    lr, seconds, checksum = NUMBERS.unpack_from(data, frame.body)
    at = frame.body + NUMBERS.size
    keys = {KEY: derive(*derived.key, step), MINIBATCH: derive(*derived.minibatch, step)}
    for flag in keys:
        if frame.flags & flag:
            (keys[flag],), at = struct.unpack_from("<Q", data, at), at + 8
    losses = struct.unpack_from(f"<{frame.losses}d", data, at)
    reason = _text(frame) if frame.flags & SKIPPED else ""
    return Record(step, keys[KEY], losses, lr, keys[MINIBATCH], seconds, checksum, reason)


def _text(frame: _Frame) -> str:
    try:
        return frame.text.decode()
    except UnicodeDecodeError:
        raise Damaged("its text is not UTF-8", frame.end) from None


def read(file: str | Path) -> Contents:
    """Return what a journal holds; the file is not changed.

    Raises:
        JournalError: it is no journal, of another version, or damaged elsewhere than in a torn last record; the message
            names the record and its byte offset.
        OSError: it cannot be read.
    """
    data = file_bytes(file)
    header, at = header_of(data, file, VERSION)
    try:
        derived = DerivedKeys.of(header)
    except JournalError as error:
        raise JournalError(f"{file}: {error}") from None
    contents = Contents(header, marks=[CHECK.unpack_from(data, at - CHECK.size)[0]])

    def take(start: int, chain: int) -> int:
        frame = _frame(data, start, chain)
        if frame.flags & EVENT:
            contents.events.append(Event(len(contents.records), parsed(_text(frame), "text", frame.end)))
        else:
            contents.records.append(_step(data, frame, len(contents.records), derived))
            contents.marks.append(CHECK.unpack_from(data, frame.end - CHECK.size)[0])
            contents.offsets.append(start)
        return frame.end

    end, chain = walk(data, at, file, take, lambda: f", {len(contents.records)} of them steps")
    return replace(contents, chain=chain, torn=len(data) - end)


def walk(
    data: bytes, at: int, file: str | Path, take: Callable[[int, int], int], told: Callable[[], str] = str
) -> tuple[int, int]:
    """Let `take` read record after record, each by its place and the checksum before it; it returns where the record
    ends. Return where the torn tail begins, and the checksum before it. `told` is said of the sound records.

    Raises:
        JournalError: a record is damaged.
    """
    chain, number, written = CHECK.unpack_from(data, at - CHECK.size)[0], 0, len(data.rstrip(b"\0"))
    while at < len(data):
        try:
            at = take(at, chain)
        except Torn:
            break
        except Damaged as damage:
            reason, end = damage.args
            if len(data) - written >= TORN_ZEROS and written < end:
                break
            raise JournalError(
                f"{file}: record {number} at byte {at} is damaged: {reason}; the {number} records before it are sound"
                f"{told()}. Restore the file from a copy, or give another --out"
            ) from None
        chain, number = CHECK.unpack_from(data, at - CHECK.size)[0], number + 1
    return at, chain


def header_of(data: bytes, file: str | Path, version: int) -> tuple[dict[str, Any], int]:
    """Return the header of a journal's bytes, and where the first record starts.

    Raises:
        JournalError: it is no journal, of another version, or its header is damaged.
    """
    if len(data) < HEAD.size or data[: len(MAGIC)] != MAGIC:
        raise JournalError(f"{file}: not a journal: it does not start with {MAGIC!r}; restore it from a copy")
    _, written, length = HEAD.unpack_from(data)
    end = HEAD.size + length
    if written != version:
        raise JournalError(f"{file}: version {written} of the journal, and this program writes {VERSION}. {OLD}")
    if end + CHECK.size > len(data) or CHECK.unpack_from(data, end) != (crc32(data[:end]),):
        raise JournalError(f"{file}: the header is damaged: restore the file from a copy, or give another --out")
    try:
        header = json.loads(data[HEAD.size : end])
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise JournalError(f"{file}: the header is no JSON object")
    return header, end + CHECK.size


OLD = (
    "Version 1 holds coefficients, from which no loss can be told again: `python -m llm journal show` and `verify` "
    "read it; to replay it, install zobench at commit acd4561"
)


def version_of(file: str | Path) -> int:
    """Return the version of a journal, 0 where the file is none."""
    data = file_bytes(file)[: HEAD.size]
    return int(HEAD.unpack(data)[1]) if len(data) == HEAD.size and data[: len(MAGIC)] == MAGIC else 0


def head(header: Mapping[str, Any]) -> bytes:
    """Return the bytes a journal with this header begins with."""
    text = json.dumps(header, separators=(",", ":")).encode()
    DerivedKeys.of(json.loads(text))
    data = HEAD.pack(MAGIC, VERSION, len(text)) + text
    return data + CHECK.pack(crc32(data))
