"""What the command `gpu` runs: parts, cut into jobs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from zobench.run.records import Row


class SkippedError(Exception):
    """A job cannot be done here; the message says why, and that is no failure."""


class Job(NamedTuple):
    """A part of the command, the name of one job of it, and what the job is given."""

    part: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Here:
    """Where jobs run: the device, the folder of the results, and the folder of files that came beside the project."""

    device: str
    out: Path
    beside: Path

    @property
    def small(self) -> bool:
        """Whether sizes are those of a trial on a CPU."""
        return self.device == "cpu"


Rows = Callable[..., Iterator[Row]]
"""(here, **arguments) -> rows; `held` in a row says whether what it is about holds.

Raises:
    SkippedError: it cannot be done here.
"""
