"""The speed of drawing and applying directions, against a copy of as much memory."""

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import nn

from zobench import Combination, ModuleSpace, Term
from zobench.law import LAWS
from zobench.random import native
from zobench.run.records import Row
from zobench.run.timing import alternating

SLOW = ("distinct-coordinate",)  # one coordinate, as "coordinate"


def measure(entries: int, repetitions: int) -> list[Row]:
    """Return a row a law and path: entries of a float32 matrix moved a second by a step along one direction, with what
    the law reads and holds for it.
    """
    module, width = nn.Module(), next(w for w in range(math.isqrt(entries), 0, -1) if entries % w == 0)
    weight = module.weight = nn.Parameter(torch.linspace(-1, 1, entries, dtype=torch.float32).view(-1, width))
    space, other = ModuleSpace(module), torch.zeros(entries, dtype=torch.float32)
    jobs: dict[str, Callable[[], object]] = {"copy": lambda: other.copy_(weight.detach().view(-1))}
    for law in LAWS:
        for path in ("native", "eager"):
            if law not in SLOW and (path == "eager" or native.available()):
                jobs[f"{law}|{path}"] = _step(space, law, path)
    speeds = {name: entries / statistics.median(s) for name, s in alternating(jobs, repetitions).items()}
    rows = []
    for name, speed in speeds.items():
        if name != "copy":
            law, path = name.split("|")
            row = {"kind": "bench-sweep", "law": law, "path": path, "numbers_per_second": speed}
            rows.append({**row, "copied_per_second": speeds["copy"], "of_copy": speed / speeds["copy"]})
    return rows


def _step(space: ModuleSpace, law: str, path: str) -> Callable[[], None]:
    keys = iter(range(10**9))

    def step() -> None:
        term = Term(LAWS[law], next(keys), torch.ones(1, dtype=torch.float64))
        with nullcontext() if path == "native" else native.turned_off():
            space.step_(Combination((term,)), 1e-9)

    return step


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [f"{'sweep':42}{'million/s':>11}{'of a copy':>11}"]
    for row in rows:
        name = f"{row['law']}, {row['path']}"
        lines.append(f"{name:42}{row['numbers_per_second'] / 1e6:11.0f}{row['of_copy']:11.3f}")
    return "\n".join(lines)
