"""Journal: what every step did, appended to a file from which weights are rebuilt without a forward pass."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zobench.layout import Layout
from zobench.run.files import create_synced, truncate_back, write_all
from zobench.run.journal_format import (
    CHECK,
    Contents,
    DerivedKeys,
    Event,
    JournalError,
    Record,
    encode,
    encode_event,
    head,
    read,
    version_of,
)

__all__ = [
    "Contents", "Event", "Journal", "JournalError", "Record", "describe", "differing", "other_stream", "read",
    "version_of",
]  # fmt: skip

SYNC_SECONDS = 5.0  # an fsync takes milliseconds: at every step it would slow small models down
FREE = ("environment",)
"""Keys of the header that may differ when a run is continued."""


class Journal:
    """The journal of a run, opened to continue it or made anew with this header.

    A record is with the operating system when `append` returns, so that a kill loses none. It is forced to disk every
    few seconds (SYNC_SECONDS) and by `sync`: a power cut may take the steps since then, which a continued run takes
    again. `records` are those found, `cut` the bytes of a torn tail that were removed. Nothing else may write to the
    file: hold the folder's lock.

    Raises:
        JournalError: as for `read`, or the header differs from that of the file; the message names the keys.
        OSError: the file cannot be written.
    """

    def __init__(self, file: str | Path, header: Mapping[str, Any]) -> None:
        self.file = Path(file)
        if not self.file.exists():
            create_synced(self.file, head(header))
        kept = read(self.file)  # a new file too: one path for both, and a header that cannot be read fails at once
        require_same(kept.header, json.loads(json.dumps(header)), self.file)  # as JSON has it: tuples become lists
        self.header, self.records, self.events, self.cut = kept.header, kept.records, kept.events, kept.torn
        self._derived, self._chain, self.marks = DerivedKeys.of(kept.header), kept.chain, kept.marks
        self._offsets = kept.offsets
        self._descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._size = os.fstat(self._descriptor).st_size
        if self.cut:  # only after the header was compared: the journal of another run is not changed
            self._size -= self.cut
            os.ftruncate(self._descriptor, self._size)
        self._synced = time.monotonic()

    def append(self, record: Record) -> None:
        """Append a record.

        Raises:
            OSError: no space, or the like; the file is as it was before.
            ValueError: as for `encode`, or the step is not the next one.
        """
        if record.step != len(self.marks) - 1:
            raise ValueError(f"{self.file}: the next step is {len(self.marks) - 1}, not {record.step}")
        at = self._size
        self._write(encode(record, self._chain, self._derived))
        self._offsets.append(at)
        self.marks.append(self._chain)

    def note(self, body: Mapping[str, Any]) -> None:
        """Append an event before the next step, and keep it among `events`; forced to disk.

        Raises:
            OSError: as for `append`.
            ValueError: as for `encode_event`.
        """
        self._write(encode_event(body, self._chain))
        self.events.append(Event(len(self.marks) - 1, dict(body)))
        self.sync()

    def _write(self, data: bytes) -> None:
        with truncate_back(self._descriptor, self._size, self.file):
            write_all(self._descriptor, data)
        self._size += len(data)
        (self._chain,) = CHECK.unpack(data[-CHECK.size :])
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def truncate(self, steps: int) -> None:
        """Forget all after so many steps, but for the events between the last of them and the next.

        Raises:
            OSError: the file cannot be written.
        """
        if steps == len(self.marks) - 1:
            return
        self._size = self._offsets[steps]
        os.ftruncate(self._descriptor, self._size)
        self.sync()
        contents = read(self.file)
        self.records, self.events, self.marks = contents.records, contents.events, contents.marks
        self._offsets, self._chain = contents.offsets, contents.chain

    def sync(self) -> None:
        """Force what was appended to disk."""
        os.fsync(self._descriptor)
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close; the second call does nothing."""
        if self._descriptor >= 0:
            # First forget the number: after an error in fsync a second close must not close another file.
            descriptor, self._descriptor = self._descriptor, -1
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def describe(layout: Layout) -> list[list[Any]]:
    """Return the layout for a header, a row a segment: name, entries, and dtype of the directions."""
    return [[s.name, s.size, str(s.dtype).removeprefix("torch.")] for s in layout.segments]


def differing(one: Mapping[str, Any], other: Mapping[str, Any], free: Sequence[str] = FREE) -> list[str]:
    """Return the keys of two headers whose values differ."""
    return sorted(k for k in one.keys() | other.keys() if k not in free and one.get(k) != other.get(k))


def other_stream(header: Mapping[str, Any], now: Any) -> str:
    """Return what is to be said of a journal with this header where its directions come from another stream of random
    numbers than `now`, with the version that draws them; empty where they do not.
    """
    told, environment = header.get("stream"), header.get("environment")
    if told == now:
        return ""
    names = environment if isinstance(environment, Mapping) else {}
    version = ", ".join(f"{name} {_short(names[name])}" for name in ("zobench", "commit") if names.get(name))
    return (
        f"the directions of this run come from the stream of random numbers {_short(told)}, those of this version of "
        f"zobench from {_short(now)}; its environment names {version or 'no version'}"
    )


def require_same(there: Mapping[str, Any], now: Mapping[str, Any], file: Path) -> None:
    """Raise JournalError unless the header of a journal is, but for its free keys, that of the run of now."""
    told = other_stream(there, now.get("stream"))
    if told:
        raise JournalError(f"{file}: {told}: continue the run with that version, or give another --out")
    names = differing(there, now)
    if names:
        changes = ", ".join(f"{k}: {_short(there.get(k))} there, {_short(now.get(k))} now" for k in names)
        raise JournalError(f"{file} is of another run ({changes}): give another --out")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
