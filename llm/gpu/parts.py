"""The parts of the command `gpu`, most important first."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from llm.gpu import beside, cells, checks, streamed
from llm.gpu.job import Job, Rows

STREAMED = (("opt-1.3b", "bfloat16", 16, 128), ("opt-1.3b", "bfloat16", 1, 2048))
ONE: Mapping[str, dict[str, Any]] = MappingProxyType({"": {}})


class Part(NamedTuple):
    """What gives the rows of a part, the share of the whole time that one of its jobs may take, and its jobs by name
    on a device and in a trial on a CPU; by default one.
    """

    rows: Rows
    share: float
    jobs: Mapping[str, dict[str, Any]] = ONE
    trial: Mapping[str, dict[str, Any]] | None = None


def _cells(chosen: Any) -> dict[str, dict[str, Any]]:
    names = ("size", "dtype", "batch", "tokens")
    return {"{} {} {}x{}".format(*each): dict(zip(names, each, strict=True)) for each in chosen}


PARTS = {
    "tests": Part(checks.tests, 0.15),
    "directions": Part(checks.directions, 0.1),
    "engines": Part(checks.engines, 0.1),
    "replay": Part(checks.replayed, 0.15, {name: {"engine": name} for name in ("plain", "in-forward")}),
    "smollm2": Part(beside.trained, 0.3),
    "cells": Part(cells.measured, 0.12, _cells(cells.CELLS), _cells(cells.SMALL)),
    "streamed": Part(streamed.stepped, 0.15, _cells(STREAMED), _cells(cells.SMALL[:2])),
    "waits": Part(cells.reads, 0.05),
    "sweeps": Part(cells.swept, 0.1, {dtype: {"dtype": dtype} for dtype in ("float32", "bfloat16")}),
    "probes": Part(cells.probed, 0.08, _cells(cells.PROBED), _cells(cells.SMALL[:2])),
    "compiled": Part(cells.compiled_steps, 0.25, _cells(cells.COMPILED), _cells(cells.SMALL[:1])),
}


def jobs(parts: tuple[str, ...], trial: bool) -> Iterator[Job]:
    """Yield the jobs of these parts."""
    for name in PARTS:
        part = PARTS[name]
        chosen = part.trial if trial and part.trial is not None else part.jobs
        for job, arguments in chosen.items() if name in parts else ():
            yield Job(name, job, arguments)
