"""Peak memory of a step and of inference, each in a process of its own."""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from llm.bench.published import Published
from llm.bench.setting import ENGINES, BenchSetting, setting, stepper
from llm.model.recompute import recompute_layers
from llm.steppers.first_order import FirstOrderStepper
from zobench.run.records import Row

MIB = 2**20
SLOPES = "forward-gradient"
FIRST_ORDER = ("adamw", "adamw, checkpointing")
SHARE = 1.05  # of inference, and the largest layer on top
RESIDENT, ANONYMOUS = "VmRSS", "RssAnon"
PROCESSES = get_context("spawn")  # a process that was forked begins with the memory of its parent


def measure(size: str, dtype: str, batch: int, tokens: int) -> list[Row]:
    """Return a row a job: "inference", "published", each engine, and AdamW without and with gradient checkpointing.

    `peak_mb` is the highest resident size from the first forward on, of a process that does nothing else; its limit is
    1.05 times that of inference, and the largest parameter on top.
    """
    jobs = ["inference", "published", *ENGINES, *FIRST_ORDER]
    peaks = {job: peak_of(size, dtype, batch, tokens, job) for job in jobs}
    return rows_of({"size": size, "dtype": dtype, "batch": batch, "tokens": tokens}, peaks)


def rows_of(about: Row, peaks: Mapping[str, Row]) -> list[Row]:
    """Return the row of each job of which `peak_mb` and `largest_mb` are known; "inference" is one of them."""
    rows, inference = [], peaks["inference"]["peak_mb"]
    for job, memory in peaks.items():
        limit, ratio = SHARE * inference + memory["largest_mb"], memory["peak_mb"] / inference
        row = {"kind": "bench-memory", **about, "job": job, **memory}
        rows.append({**row, "of_inference": ratio, "limit_mb": limit, "held": memory["peak_mb"] <= limit})
    return rows


def peak_of(size: str, dtype: str, batch: int, tokens: int, job: str) -> Row:
    """Return what `child` finds of a job in a process of its own; errors as `in_a_process`."""
    return in_a_process(job, child, size, dtype, batch, tokens, job, torch.get_num_threads())


def in_a_process(what: str, work: Callable[..., Row], *arguments: Any) -> Row:
    """Return what work(*arguments) finds in a process of its own; `what` names it in words.

    Raises:
        RuntimeError: the process failed.
    """
    with ProcessPoolExecutor(1, PROCESSES) as pool:
        try:
            return pool.submit(work, *arguments).result()
        except Exception as error:
            raise RuntimeError(f"the process that measures {what} failed: {error}") from error


def child(size: str, dtype: str, batch: int, tokens: int, job: str, threads: int) -> Row:
    """Run a job three times and return its peak; the peak of building the model does not count."""
    torch.set_num_threads(threads)
    here = setting(size, dtype, batch, tokens)
    sizes = [p.numel() * p.element_size() / MIB for p in here.model.parameters()]
    work: Callable[[], object]
    if job == "inference":
        work = torch.inference_mode()(here.loss)
    elif job in FIRST_ORDER:
        work = adamw_step(here, recomputed=job != FIRST_ORDER[0])
    else:
        engine = job.removeprefix(f"{SLOPES}, ")
        method = "mezo" if engine == job else SLOPES
        work = Published(here).step if job == "published" else stepper(here, engine, "gaussian", method=method)
    with Peak() as peak:
        for _ in range(3):
            work()
    return {"peak_mb": peak.mb, "model_mb": sum(sizes), "largest_mb": max(sizes)}


def adamw_step(here: BenchSetting, recomputed: bool) -> Callable[[], object]:
    """Return a step of AdamW by backpropagation, which with `recomputed` keeps activations of layers alone."""
    if recomputed:
        recompute_layers(here.model)
    stepper, losses = FirstOrderStepper(here.model, "adamw", lambda step: 1e-7, 0.0), torch.enable_grad()(here.loss)
    return lambda: stepper.step(0, losses)


class Peak:
    """The highest memory of this process within the block, read every millisecond: of each kind in bytes, and of the
    first in MiB. Kinds are lines of Linux's /proc/self/status.
    """

    def __init__(self, *kinds: str) -> None:
        self.kinds = kinds or (RESIDENT,)

    def __enter__(self) -> "Peak":
        self.highest, self._over = memory_now(*self.kinds), threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()

    @property
    def mb(self) -> float:
        """The first kind, in MiB."""
        return self.highest[0] / MIB

    def _watch(self) -> None:
        while not self._over.wait(1e-3):
            self.highest = tuple(map(max, self.highest, memory_now(*self.kinds)))


def memory_now(*kinds: str, process: int | None = None) -> tuple[int, ...]:
    """Return the bytes of these kinds that a process has, by default this one.

    Raises:
        OSError: there is no such process.
        RuntimeError: the system does not tell; Linux does.
    """
    status = Path("/proc") / str(process or "self") / "status"
    lines = dict(line.partition(":")[::2] for line in status.read_text().splitlines())
    if unknown := [kind for kind in kinds if kind not in lines]:
        raise RuntimeError(f"{status} has no {unknown[0]}: memory is measured on Linux only")
    return tuple(int(lines[kind].split()[0]) * 1024 for kind in kinds)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [f"{'peak memory':42}{'MiB':>9}{'of inference':>14}{'limit MiB':>11}{'held':>6}"]
    for row in rows:
        held = "yes" if row["held"] else "no"
        ratio = row["of_inference"]
        lines.append(f"{row['job']:42}{row['peak_mb']:9.0f}{ratio:14.3f}{row['limit_mb']:11.0f}{held:>6}")
    return "\n".join(lines)
