"""Claims: which of several processes, on one machine or on several that share a file system, does a piece of work.

The claims on a piece of work are files with rising numbers, made by hard links, which exactly one process can make and
which need no locks of the file system. The highest claim counts. A process releases its claim by emptying the file. A
claim is stale when its process is dead (seen from the same machine) or when its heartbeat has stood still (seen from
another machine, by the clock of the one that looks). Whoever takes over makes the claim of the next number: a stale one
is never removed, so that two processes that see it stale cannot both succeed.
"""

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from zobench.run import exit_status

FOLDER = ".claims"
HEARTBEAT = 10.0
"""Seconds between two heartbeats of a claim."""
STALE = 120.0
"""Seconds without a heartbeat after which another machine takes over: caches of network file systems last up to 60."""
POLL = 0.02


class Claim:
    """A claim that is held, with a thread for its heartbeat, until it is released or the process ends."""

    def __init__(self, claims: "Claims", name: str, number: int) -> None:
        self.claims, self.name, self.number = claims, name, number
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name=f"claim {name}", daemon=True)
        self._heart.start()

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def file(self) -> Path:
        """The file of the claim."""
        return self.claims.file(self.name, self.number)

    @property
    def held(self) -> bool:
        """Whether nobody has taken over or cleared the claim."""
        return max(self.claims.numbers(self.name), default=0) == self.number

    def release(self) -> None:
        """Let others claim the work, and remove the claims before this one; the second call does nothing."""
        if self._over.is_set():
            return
        self._over.set()
        with suppress(OSError):  # somebody has cleared the claims of this work, which is done
            os.truncate(self.file, 0)
            for number in self.claims.numbers(self.name):
                if number < self.number:
                    self.claims.file(self.name, number).unlink()

    def _beat(self) -> None:
        while not self._over.wait(HEARTBEAT):
            lost = not self.held
            with suppress(OSError):  # a network file system that is away for a while
                os.utime(self.file)
            if lost and not self._over.is_set():
                give_up(self)


def give_up(claim: Claim) -> None:
    """End the process, which stood still until another one took its claim: both would write the same files."""
    sys.stderr.write(
        f"{claim.name}: this process did not respond for {STALE:g} s or more, and another worker does its work now; "
        "the same command joins the workers again\n"
    )
    sys.stderr.flush()
    os._exit(exit_status.FAULT)


class Claims:
    """The claims on named pieces of work below a folder.

    Args:
        folder: the folder of the whole; claims are kept in a folder of their own in it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder) / FOLDER
        self._seen: dict[Path, tuple[int, float]] = {}

    def free(self, name: str) -> int | None:
        """Return the number that a claim on this work would have now; None while a process holds one."""
        last = max(self.numbers(name), default=0)
        return None if last and self._held(self.file(name, last)) else last + 1

    def claim(self, name: str, number: int) -> Claim | None:
        """Make the claim of this number; None where another process was faster.

        Raises:
            OSError: the folder cannot be written.
        """
        self._make_folder()
        aside = self.folder / f"{uuid4().hex}.part"
        aside.write_text(json.dumps(_me()), encoding="utf-8")
        try:
            if not _linked(aside, self.file(name, number)):
                return None
        finally:
            aside.unlink()
        if max(self.numbers(name), default=number) > number:  # one who came late made a number that had been removed
            self.file(name, number).unlink()
            return None
        return Claim(self, name, number)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[Claim]:
        """Wait for the claim on this work and hold it within: for work of moments."""
        while True:
            number = self.free(name)
            claim = None if number is None else self.claim(name, number)
            if claim is not None:
                break
            time.sleep(POLL)
        with claim:
            yield claim

    def clear(self, name: str) -> None:
        """Remove the claims on work that is done, whose result everybody sees before they claim it."""
        for number in self.numbers(name):
            self._seen.pop(self.file(name, number), None)
            with suppress(FileNotFoundError):
                self.file(name, number).unlink()

    def any_held(self, but: str) -> bool:
        """Return whether a process holds a claim on any work but this."""
        names = {name for name, _ in self._files()} - {quote(but, safe="")}
        last = (max(self.folder.glob(f"{name}@*"), default=None) for name in names)
        return any(file is not None and self._held(file) for file in last)

    def numbers(self, name: str) -> list[int]:
        """Return the numbers of the claims on this work."""
        return [number for known, number in self._files() if known == quote(name, safe="")]

    def file(self, name: str, number: int) -> Path:
        """Return the file of a claim."""
        return self.folder / f"{quote(name, safe='')}@{number:06d}"

    def _files(self) -> Iterator[tuple[str, int]]:
        with suppress(FileNotFoundError):
            for file in os.listdir(self.folder):
                name, at, number = file.rpartition("@")
                if at and number.isdecimal():
                    yield name, int(number)

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ".gitignore").write_text("*\n", encoding="utf-8")

    def _held(self, file: Path) -> bool:
        try:
            with file.open("rb") as stream:  # opened first: on a network file system only that asks the server
                text, beat = stream.read(), os.fstat(stream.fileno()).st_mtime_ns
        except FileNotFoundError:
            return True  # cleared just now: whoever asks again sees why
        if not text:
            return False
        owner = _owner(text)
        if all(owner.get(part) == value for part, value in _machine().items()):
            return _lives(owner)
        before, since = self._seen.get(file, (None, 0.0))
        if before != beat:
            self._seen[file] = beat, time.monotonic()
            return True
        return time.monotonic() - since < STALE


def _linked(aside: Path, file: Path) -> bool:
    """Whether this process has made the file, with the contents of the other one at once."""
    try:
        os.link(aside, file)
    except FileExistsError:
        return False
    except OSError:  # no hard links there, or the answer of a server was lost on the way
        return os.stat(aside).st_nlink == 2 or _created(file, aside.read_bytes())
    return True


def _created(file: Path, data: bytes) -> bool:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(data)
    return True


def _owner(text: bytes) -> dict[str, Any]:
    with suppress(ValueError):
        owner = json.loads(text)
        return owner if isinstance(owner, dict) else {}
    return {}


def _me() -> dict[str, Any]:
    return {**_machine(), "pid": os.getpid(), "started": _started(os.getpid())}


@cache
def _machine() -> dict[str, Any]:
    """What processes have in common that can see each other: containers of one machine need not."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    return {
        "host": socket.gethostname(),
        "boot": boot.read_text(encoding="ascii").strip() if boot.exists() else "",
        "processes": os.readlink(space) if space.is_symlink() else "",
    }


def _lives(owner: dict[str, Any]) -> bool:
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return bool(_started(pid) == owner.get("started"))


def _started(pid: int) -> str:
    """When a process started, so that another one of its number is not taken for it; "dead" for one that only waits to
    be reaped; empty where the system does not tell.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    # A killed process whose first thread is gone holds its files until the last thread is gone too.
    return "dead" if fields[0] in "ZX" and int(fields[17]) <= 1 else fields[19]
