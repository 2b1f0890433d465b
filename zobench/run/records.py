"""Records: a run is a folder with its configuration, its environment and one row for each measurement."""

import json
import math
import os
import platform
import subprocess
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zobench.random import streams
from zobench.run import toml
from zobench.run.claims import Claims
from zobench.run.files import create_synced, truncate_back, write_all
from zobench.run.lock import FolderLock, lock
from zobench.run.reading import file_bytes, json_object, toml_table
from zobench.version import VERSION

Row = dict[str, Any]
ROWS_CLAIM = "rows"
"""The claim of the process that writes the record of several at the moment."""


def plain_row(row: Mapping[str, Any]) -> Row:
    """Return a row as its file holds it: numbers that are not finite are null."""
    return {k: _json(v) for k, v in row.items()}


class Run:
    """The folder runs/<name>/: config.toml (complete), environment.json, rows.jsonl (appended and synced row by row).

    Opened again with the same configuration it continues: `rows` holds what was measured before. A torn last line, left
    by a crash, is cut off. What writes first locks the folder against other processes. `defaults` are the values of
    options that an older configuration does not name, `free` the names that a continued run may change. With `look`
    nothing is written: for seeing what the folder holds, and whether it would be continued. With `begun` the
    configuration counts before there are rows: other processes work by it. Without a configuration that of the folder
    holds, whatever it is.

    Raises:
        ValueError: the folder holds a run with another configuration (the message names what differs), its files are
            damaged, or one of them is a link to elsewhere.
        FolderInUseError: another process writes there.
        OSError: the folder cannot be made or written.
    """

    def __init__(
        self,
        folder: str | Path,
        config: Mapping[str, Any] | None,
        defaults: Mapping[str, Any] | None = None,
        free: Collection[str] = (),
        look: bool = False,
        begun: bool = False,
    ) -> None:
        self.folder, self._look, self._begun = Path(folder), look, begun
        if not look:
            self.folder.mkdir(parents=True, exist_ok=True)
        require_contained(self.folder)
        self._lock: FolderLock | None = None
        self._rows_file = self.folder / "rows.jsonl"
        self.rows = self._read_rows()
        if config is not None:
            self._keep_config(_plain(config), _plain(defaults or {}), frozenset(free))
            self._keep_environment()
        self._announced = False

    def append(self, row: Mapping[str, Any], sync: bool = True) -> None:
        """Append one measurement and force it to disk, unless told not to; numbers that are not finite are written as
        null.

        Raises:
            OSError: no space, or the like; the file is as it was before.
        """
        if not self._announced:
            self._announce()
        self.own()
        plain = plain_row(row)
        data = (json.dumps(plain, allow_nan=False) + "\n").encode()
        # Opened anew for each row: a run that is only read, or that has ended, holds no descriptor.
        descriptor = os.open(self._rows_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with truncate_back(descriptor, os.fstat(descriptor).st_size, self._rows_file):
                write_all(descriptor, data)
                if sync:
                    os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.rows.append(plain)

    def own(self) -> FolderLock:
        """Lock the folder against other processes, for as long as this object lives or until the lock is released.

        Raises:
            FolderInUseError: another process holds it.
        """
        if self._lock is None or not self._lock.held:
            self._lock = lock(self.folder)
        return self._lock

    @classmethod
    def joined(
        cls,
        folder: str | Path,
        config: Mapping[str, Any],
        defaults: Mapping[str, Any] | None = None,
        free: Collection[str] = (),
    ) -> "Run":
        """Open a folder that several processes write at the same time, each within `shared`."""
        claims = Claims(folder)
        with claims.exclusive(ROWS_CLAIM):
            record = cls(folder, config, defaults, free, begun=claims.any_held(but=ROWS_CLAIM))
            record.own().release()
        return record

    @classmethod
    def reopened(cls, folder: str | Path) -> "Run":
        """Open a folder that `joined` has opened, in another process maybe, to add rows."""
        with Claims(folder).exclusive(ROWS_CLAIM):
            record = cls(folder, None)
            record.own().release()
        return record

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one measurement to a folder that several processes write.

        Raises:
            OSError: no space, or the like; the file is as it was before.
        """
        with self.shared():
            self.append(row)

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Write alone within, after reading the rows of others; outside, others may write."""
        with Claims(self.folder).exclusive(ROWS_CLAIM):
            before, self.rows = len(self.rows), self._read_rows()
            self._announced = self._announced and len(self.rows) == before
            try:
                yield
            finally:
                self.own().release()

    def refresh(self) -> None:
        """Read the rows that other processes have written by now."""
        self.rows = rows_now(self.folder)

    def find(self, **wanted: Any) -> list[Row]:
        """Return the rows that have all these values."""
        return rows_with(self.rows, **wanted)

    def _keep_config(self, config: Row, defaults: Row, free: frozenset[str]) -> None:
        file = self.folder / "config.toml"
        depended = self.rows or self._begun  # without rows nothing depends on an older configuration
        if not (file.exists() and depended):
            if not self._look:
                self.own()
                self._keep_out_of_git()
                write_atomically(file, toml.dumps(config))
            return
        try:
            written = toml_table(file_bytes(file), str(file))
            if config and not written:
                raise ValueError(f"{file}: empty")
        except ValueError as error:
            raise ValueError(f"{error}: restore it from a copy, or give another --out") from None
        kept = defaults | written
        differing = sorted(k for k in (kept.keys() | config.keys()) - free if kept.get(k) != config.get(k))
        if differing:
            changes = ", ".join(f"{k}: {kept.get(k)!r} there, {config.get(k)!r} now" for k in differing)
            raise ValueError(
                f"{self.folder} holds a run with another configuration in {file.name} ({changes}): give another --out"
            )

    def _keep_out_of_git(self) -> None:
        """A run folder in a checkout leaves it clean, or `commit` of every later run would tell of changes; one below
        results/ is there to be committed.
        """
        ignored = self.folder / ".gitignore"
        if not ignored.exists() and "results" not in self.folder.resolve().parts:
            ignored.write_text("*\n", encoding="utf-8")

    def _keep_environment(self) -> None:
        file = self.folder / "environment.json"
        if not self._look and (not file.exists() or not self.rows):
            self.own()
            said = environment() | {"config": checksum(self.folder / "config.toml")}
            write_atomically(file, json.dumps(said, indent=2) + "\n")

    def _announce(self) -> None:
        """Before the first row that this process adds to others': a row that says so, if another version adds it."""
        self._announced = True
        if not self.rows:
            return
        file, now = self.folder / "environment.json", environment()
        known = [json_object(file_bytes(file), str(file)), *self.find(kind="environment")]
        if any(known[-1].get(name) != now[name] for name in ("zobench", "python", "torch", "stream", "commit", "cpu")):
            self.append({"kind": "environment", **now})

    def _read_rows(self) -> list[Row]:
        if not self._rows_file.exists():
            return []
        data = file_bytes(self._rows_file)
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data) and not self._look:
            self.own()  # before the cut: the "torn" line may be one that another process is writing
            os.truncate(self._rows_file, len(whole))
        return _rows_of(whole, self._rows_file)


def rows_with(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have all these values."""
    plain = {k: _json(v) for k, v in wanted.items()}
    return [row for row in rows if all(row.get(k) == v for k, v in plain.items())]


def rows_now(folder: Path) -> list[Row]:
    """Return the rows that a folder holds now, without a last one that is being written; they are read again only when
    the file has changed.
    """
    file = folder / "rows.jsonl"
    try:
        with file.open("rb") as stream:  # opened first: on a network file system only that asks the server
            about = os.fstat(stream.fileno())
        return list(_parsed(file, about.st_ino, about.st_size, about.st_mtime_ns))
    except FileNotFoundError:
        return []


@lru_cache(maxsize=2)
def _parsed(file: Path, *_: int) -> list[Row]:
    return _rows_of(file_bytes(file), file)


def _rows_of(data: bytes, file: Path) -> list[Row]:
    """The rows of a file's whole lines."""
    return [json_object(line, f"{file}:{number}") for number, line in enumerate(data.split(b"\n")[:-1], 1)]


def require_contained(folder: Path) -> None:
    """Raise ValueError if something in the folder, or in a folder in it, is a link that leads out of it: what is
    written there would land elsewhere. So would it in a pipe or a device.
    """
    inside = folder.resolve()
    for path in (*folder.glob("*"), *folder.glob("*/*")):
        if path.is_symlink() and not path.resolve().is_relative_to(inside):
            raise ValueError(f"{path} is a link that leads out of the run's folder: remove it, or give another --out")
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise ValueError(f"{path} is neither a file nor a folder: remove it, or give another --out")


def within(folder: Path, name: str) -> Path:
    """Return folder / name.

    Raises:
        ValueError: that is not in the folder.
    """
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()) or path.resolve() == folder.resolve():
        raise ValueError(f"{name!r} leads out of {folder}: results are written only into the run's folder")
    return path


def write_atomically(file: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of it."""
    create_synced(file, text.encode())


def checksum(file: Path) -> str:
    """Return "crc32:" and eight hexadecimal digits of the contents of a file."""
    return f"crc32:{zlib.crc32(file.read_bytes()):08x}"


def environment() -> dict[str, Any]:
    """Return what a reader needs to judge a number: versions, stream of random numbers, commit, hardware, date."""
    return {
        "zobench": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "stream": streams.NAME,
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).parent.name or sys.argv[0], *sys.argv[1:]]),
    }


@cache
def _commit() -> str | None:
    def git(*arguments: str) -> str:
        folder = Path(__file__).parent
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _json(value: Any) -> Any:
    if isinstance(value, torch.Tensor | np.ndarray):
        return _json(value.tolist())
    if isinstance(value, list | tuple):
        return [_json(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _json(v) for k, v in value.items()}
    if isinstance(value, np.generic):
        return _json(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _plain(config: Mapping[str, Any]) -> Row:
    return {k: _toml(v) for k, v in config.items() if v is not None}


def _toml(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_toml(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value
