"""Records: a run is a folder with its configuration, its environment and one row for each measurement."""

import json
import math
import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch

from zobench.version import VERSION

Row = dict[str, Any]


class Run:
    """The folder runs/<name>/: config.toml (complete), environment.json, rows.jsonl (appended and synced row by row).

    Opened again with the same configuration it continues: `rows` holds what was measured before. A torn last line, left
    by a crash, is cut off.

    Raises:
        ValueError: the folder holds a run with another configuration; the message names what differs.
    """

    def __init__(self, folder: str | Path, config: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._rows_file = self.folder / "rows.jsonl"
        self.rows = self._read_rows()
        self._keep_config({k: _toml(v) for k, v in config.items() if v is not None})
        self._keep_environment()
        self._announced = False

    def append(self, row: Mapping[str, Any]) -> None:
        """Append one measurement and force it to disk; numbers that are not finite are written as null."""
        if not self._announced:
            self._announce()
        plain = {k: _json(v) for k, v in row.items()}
        with self._rows_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(plain, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows.append(plain)

    def find(self, **wanted: Any) -> list[Row]:
        """Return the rows that have all these values."""
        plain = {k: _json(v) for k, v in wanted.items()}
        return [row for row in self.rows if all(row.get(k) == v for k, v in plain.items())]

    def _keep_config(self, config: dict[str, Any]) -> None:
        file = self.folder / "config.toml"
        if not file.exists() or not self.rows:
            write_atomically(file, tomli_w.dumps(config))
            return
        kept = tomllib.loads(file.read_text(encoding="utf-8"))
        differing = sorted(k for k in kept.keys() | config.keys() if kept.get(k) != config.get(k))
        if differing:
            changes = ", ".join(f"{k}: {kept.get(k)!r} there, {config.get(k)!r} now" for k in differing)
            raise ValueError(f"{self.folder} holds a run with another configuration ({changes}): give another --out")

    def _keep_environment(self) -> None:
        file = self.folder / "environment.json"
        if not file.exists() or not self.rows:
            write_atomically(file, json.dumps(environment(), indent=2) + "\n")

    def _announce(self) -> None:
        """Before the first row that this process adds to others': a row that says so, if another version adds it."""
        self._announced = True
        if not self.rows:
            return
        file, now = self.folder / "environment.json", environment()
        known = [json.loads(file.read_text(encoding="utf-8")), *self.find(kind="environment")]
        if any(known[-1].get(name) != now[name] for name in ("zobench", "python", "torch", "commit", "cpu")):
            self.append({"kind": "environment", **now})

    def _read_rows(self) -> list[Row]:
        if not self._rows_file.exists():
            return []
        data = self._rows_file.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            os.truncate(self._rows_file, len(whole))
        return [self._parse(number, line) for number, line in enumerate(whole.splitlines(), 1)]

    def _parse(self, number: int, line: bytes) -> Row:
        try:
            row: Row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{self._rows_file}:{number}: not JSON ({error}): mend or remove the line") from None
        return row


def write_atomically(file: Path, text: str) -> None:
    """Write a file so that a crash leaves the old one or the new one, never half of it."""
    temporary = file.with_name(file.name + ".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, file)


def environment() -> dict[str, Any]:
    """Return what a reader needs to judge a number: versions, commit, hardware, date."""
    return {
        "zobench": VERSION,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).parent.name or sys.argv[0], *sys.argv[1:]]),
    }


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
    if isinstance(value, torch.Tensor):
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


def _toml(value: Any) -> Any:
    return [_toml(v) for v in value] if isinstance(value, list | tuple) else value
