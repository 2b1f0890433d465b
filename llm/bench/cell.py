"""One model on one device: time and memory of its steps beside AdamW's, in one process."""

import statistics
from collections.abc import Callable, Iterator, Sequence

import torch

from llm.bench import memory, steps
from llm.bench.memory import FIRST_ORDER, MIB
from llm.bench.setting import BenchSetting, waited
from llm.cost.live import size_of
from llm.cost.memory import PeakMemory
from llm.model.free_memory import free_memory
from zobench.run.records import Row
from zobench.run.timing import alternating

ENGINES = ("plain", "in-forward")
HELD = 4
"""Times the weights that AdamW holds: weights, gradients and two moments."""


def measure(here: BenchSetting, laws: Sequence[str], repetitions: int) -> Iterator[Row]:
    """Yield the rows of memory and time of the published loop, the limit and each engine, then those of AdamW without
    and with gradient checkpointing. What a job does once (compiling kernels) is in its memory and not in its time.

    Raises:
        RuntimeError: the engines and the published loop do not compute the same loss.
    """
    labels, jobs = steps.jobs_of(here, laws, ENGINES, touched=(False,))
    inference = waited(here.device, torch.inference_mode()(here.loss))
    peaks = {name: peak(here, job) for name, job in {"inference": inference, **jobs}.items() if name != "limit"}
    yield from memory.rows_of(here.about, peaks)
    jobs["limit"]()
    seconds = alternating(jobs, repetitions)
    yield from steps.rows_of(here, labels, seconds)
    jobs.clear()  # and what the engines hold
    yield from _first_order(here, repetitions, statistics.median(seconds["limit"]))


def peak(here: BenchSetting, job: Callable[[], object]) -> Row:
    """Return the peak memory of a job that is called twice; on CUDA also what torch reserved for it."""
    if here.device.type == "cuda":
        torch.cuda.empty_cache()
    with PeakMemory(here.device) as memory:
        job()
        job()
    sizes = [p.numel() * p.element_size() / MIB for p in here.model.parameters()]
    return {
        "peak_mb": memory.mb, "reserved_mb": memory.reserved_mb, "model_mb": sum(sizes), "largest_mb": max(sizes)
    }  # fmt: skip


def _first_order(here: BenchSetting, repetitions: int, limit: float) -> Iterator[Row]:
    """The rows of AdamW; a job that has no room is a row that says so."""
    weights = size_of(here.model.parameters())
    for job in FIRST_ORDER:
        about = {"kind": "bench-first-order", **here.about, "job": job}
        free = free_memory(str(here.device))
        if free is not None and free < (HELD - 1) * weights:
            reason = f"gradients and moments take {(HELD - 1) * weights / MIB:.0f} MiB, and {free / MIB:.0f} are free"
            yield {**about, "status": "skipped", "reason": reason}
            continue
        step = waited(here.device, memory.adamw_step(here, recomputed=job != FIRST_ORDER[0]))
        try:
            yield {**about, "status": "ok", **_timed(here, step, repetitions, limit)}
        except torch.OutOfMemoryError as error:
            yield {**about, "status": "failed", "reason": str(error)}
        here.model.zero_grad(set_to_none=True)


def _timed(here: BenchSetting, step: Callable[[], object], repetitions: int, limit: float) -> Row:
    memory = peak(here, step)
    seconds = alternating({"step": step}, repetitions)["step"]
    return {**memory, "seconds": seconds, "of_limit": statistics.median(seconds) / limit}


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    peaks = {row["job"]: row["peak_mb"] for row in rows if row.get("peak_mb")}
    lines = [f"{'step':30}{'seconds':>9}{'of the limit':>14}{'faster than published':>23}{'peak MiB':>10}"]
    for row in rows:
        if row["kind"] == "bench-memory":
            continue
        if row.get("status", "ok") != "ok":
            lines.append(f"{row['job']:30} {row['status']}: {row['reason']}")
            continue
        faster, mb = row.get("speedup", float("nan")), peaks.get(row["job"], float("nan"))
        middle = statistics.median(row["seconds"])
        lines.append(f"{row['job']:30}{middle:9.4f}{row['of_limit']:14.2f}{faster:23.2f}{mb:10.0f}")
    return "\n".join(lines)
