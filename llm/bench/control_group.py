"""A control group of Linux: processes whose memory, with the page cache that they fill, is limited."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from llm.model.free_memory import groups

PEAKS = {"memory.max": "memory.peak", "memory.limit_in_bytes": "memory.max_usage_in_bytes"}


class ControlGroup(NamedTuple):
    """A group by its folder, and the name of its file with the limit."""

    folder: Path
    limit: str

    @property
    def version(self) -> int:
        """1 or 2."""
        return 2 if self.limit == "memory.max" else 1

    @property
    def processes(self) -> Path:
        """The file to which a process writes its number to join."""
        return self.folder / "cgroup.procs"

    @property
    def peak(self) -> int | None:
        """The most bytes that the group held, None where the system does not tell."""
        file = self.folder / PEAKS[self.limit]
        return int(file.read_text()) if file.exists() else None


@contextmanager
def limited(size: int) -> Iterator[ControlGroup | None]:
    """A new group of so many bytes within that of this process; None where none can be made."""
    group = next(filter(None, (_made(parent, names[0], size) for parent, names in groups())), None)
    try:
        yield group
    finally:
        if group is not None:
            with suppress(OSError):
                group.folder.rmdir()


def _made(parent: Path, limit: str, size: int) -> ControlGroup | None:
    group = ControlGroup(parent / f"zobench-{os.getpid()}", limit)
    try:
        group.folder.mkdir()
    except OSError:  # no such groups, or no right to make one
        return None
    try:
        with (group.folder / limit).open("r+") as file:  # which is there only if the group limits memory
            file.write(str(size))
    except OSError:
        with suppress(OSError):
            group.folder.rmdir()
        return None
    return group
