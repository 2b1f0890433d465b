"""The speed of drawing and applying directions, against a copy of as much memory."""

import math
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import nn

from llm.bench.setting import waited
from llm.model.language_model import DTYPES
from zobench import Combination, ModuleSpace, Term
from zobench.law import LAWS
from zobench.random import native
from zobench.run.records import Row
from zobench.run.timing import alternating

SLOW = ("distinct-coordinate",)  # one coordinate, as "coordinate"


def measure(
    entries: int, repetitions: int, device: str = "cpu", laws: Sequence[str] = tuple(LAWS), dtype: str = "float32"
) -> list[Row]:
    """Return a row a law and path: entries of a matrix moved a second by a step along one direction, with what the law
    reads and holds for it.
    """
    module, width = nn.Module(), next(w for w in range(math.isqrt(entries), 0, -1) if entries % w == 0)
    weight = module.weight = nn.Parameter(
        torch.linspace(-1, 1, entries, dtype=DTYPES[dtype], device=device).view(-1, width)
    )
    space, other = ModuleSpace(module), torch.zeros_like(weight)
    jobs: dict[str, Callable[[], object]] = {"copy": lambda: other.copy_(weight.detach())}
    for law in laws:
        for path in ("native", "eager"):
            if law not in SLOW and (path == "eager" or native.available()):
                jobs[f"{law}|{path}"] = _step(space, law, path)
    if device != "cpu":
        jobs = {name: waited(weight.device, job) for name, job in jobs.items()}
        for job in jobs.values():
            job()  # compiles its kernels
    speeds = {name: entries / statistics.median(s) for name, s in alternating(jobs, repetitions).items()}
    about, rows = {} if device == "cpu" else {"device": device, "dtype": dtype}, []
    for name, speed in speeds.items():
        if name != "copy":
            law, path = name.split("|")
            row = {"kind": "bench-sweep", **about, "law": law, "path": path, "numbers_per_second": speed}
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
