"""The runs of a study as one whole: how many are made, and how long the rest will take."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llm.run.folder import ROWS
from zobench.run.progress import duration, part_of


class Overall:
    """The runs of a study by name, each with its cost in forward passes (or any unit in proportion to its time).

    The time left is the cost left at the speed of the runs that this call made; those found finished tell nothing of
    it.
    """

    def __init__(self, costs: Mapping[str, float]) -> None:
        self.costs, self.left = dict(costs), dict(costs)
        self.spent = self.seconds = 0.0

    @contextmanager
    def run(self, name: str, folder: Path) -> Iterator[None]:
        """Count a run that is made within in this folder; its bars begin with its number and the time left."""
        was, began = finished(folder), time.monotonic()
        with part_of(str(self)):
            yield
        cost = self.left.pop(name, 0.0)
        if not was:
            self.spent, self.seconds = self.spent + cost, self.seconds + time.monotonic() - began

    def __str__(self) -> str:
        number = f"run {len(self.costs) - len(self.left) + 1}/{len(self.costs)}"
        if not self.spent:
            return number
        return f"{number} ({duration(sum(self.left.values()) * self.seconds / self.spent)} left)"


def finished(folder: Path) -> bool:
    """Return whether the rows of a run tell its end."""
    file = folder / ROWS
    data = file.read_bytes() if file.is_file() else b""
    return b'"kind": "final"' in data[: data.rfind(b"\n") + 1]  # the last line may be one that is being written
