"""A pass of forward-mode differentiation against a bare forward: products, time and memory."""

import statistics
from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from llm.bench import memory
from llm.bench.setting import ENGINES, BenchSetting, setting
from zobench import derive, methods
from zobench.run.records import Row
from zobench.run.timing import alternating

SLOPE_ENGINES = ("plain", "in-forward")


def measure(size: str, dtype: str, batch: int, tokens: int, repetitions: int) -> list[Row]:
    """Return a row a job: "forward", "slope" on two engines, and "backward", a forward with its backpropagation.

    `of_forward` is the median time in those of a bare forward, `flops_of_forward` the same of multiplications and
    additions, as torch counts them; `peak_mb` as in the memory part.
    """
    here = setting(size, dtype, batch, tokens)
    jobs: dict[str, Callable[[], object]] = {"forward": torch.no_grad()(here.loss)}
    jobs |= {f"slope, {engine}": _slope(here, engine) for engine in SLOPE_ENGINES}
    jobs["backward"] = lambda: _backward(here)
    flops = {}
    for name, job in jobs.items():  # and what the first call does once is not counted
        with FlopCounterMode(display=False) as counter:
            job()
        flops[name] = counter.get_total_flops()
    here.model.zero_grad()
    seconds = alternating(jobs, repetitions)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    peaks = {f"slope, {engine}": f"{memory.SLOPES}, {engine}" for engine in SLOPE_ENGINES} | {"forward": "inference"}
    rows = []
    for name, times in seconds.items():
        peak = memory.peak_of(size, dtype, batch, tokens, peaks[name]) if name in peaks else {"peak_mb": None}
        rows.append({
            "kind": "bench-slope", **here.about, "job": name, "seconds": times,
            "of_forward": middle[name] / middle["forward"], "flops": flops[name],
            "flops_of_forward": flops[name] / flops["forward"], "peak_mb": peak["peak_mb"],
        })  # fmt: skip
    return rows


def _slope(here: BenchSetting, engine: str) -> Callable[[], object]:
    space, plan = ENGINES[engine](here.model), methods.make(memory.SLOPES).ask(derive("bench", "slope"), ())
    return lambda: space.losses(here.loss, plan)


def _backward(here: BenchSetting) -> None:
    here.model.zero_grad()
    here.loss().mean().backward()


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [f"{'forward-mode differentiation':42}{'seconds':>9}{'of a forward':>14}{'products':>10}{'peak MiB':>10}"]
    for row in rows:
        middle, peak = statistics.median(row["seconds"]), row["peak_mb"] or float("nan")
        products = row["flops_of_forward"]
        lines.append(f"{row['job']:42}{middle:9.3f}{row['of_forward']:14.2f}{products:10.2f}{peak:10.0f}")
    return "\n".join(lines)
