"""A streamed step against the same step in memory, and against the disk: seconds and memory, side by side."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from llm.bench import random_model
from llm.bench.memory import ANONYMOUS, MIB, RESIDENT, Peak, in_a_process, memory_now
from llm.bench.setting import BenchSetting, of_model
from llm.cost.streamed import in_memory
from llm.model import loading, streaming
from llm.model.mapped import MappedBlocks, blocks_of
from llm.steppers.engines import make_space
from zobench import ModuleSpace, derive, methods, query
from zobench.run.records import Row
from zobench.run.timing import alternating
from zobench.threads import pool

CACHED, UNCACHED, MEMORY, DISK = "streamed, cached", "streamed, not cached", "in memory", "read and written once"
STEPS = 2


def measure(size: str, dtype: str, batch: int, tokens: int, repetitions: int, model: str | None = None) -> list[Row]:
    """Return a row with the seconds of a MeZO step streamed and in memory (the paired engine), and those of the disk
    alone, alternating, with the medians of their ratios call by call; and a row with the peak memory of a process that
    takes streamed steps.

    Not cached, nothing of the model is in the page cache before a step, and its end is when all weights are on disk.
    """
    with folder_of(size, dtype, model) as folder:
        about = {"size": size, "dtype": dtype, "batch": batch, "tokens": tokens, "threads": torch.get_num_threads()}
        return [
            {"kind": "bench-streamed-memory", **about, **in_a_process("peaks", _peaks, folder, *about.values())},
            {
                "kind": "bench-streamed",
                **about,
                **in_a_process("times", _seconds, folder, *about.values(), repetitions),
            },
        ]


@contextmanager
def folder_of(size: str, dtype: str, given: str | None) -> Iterator[str]:
    """The folder of a model that is given, or of a random one, which is removed at the end."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        random_model.write(Path(folder) / "model", size, dtype, 0)
        yield str(Path(folder) / "model")


def _stepper(here: BenchSetting, space: ModuleSpace) -> Callable[[], None]:
    """A step of MeZO; it is pending until the next one reads the weights."""
    mezo, keys = methods.make("mezo"), iter(range(10**9))

    def step() -> None:
        estimate = query(space, mezo, here.loss, derive("bench", "step", next(keys)), ())
        space.step_(estimate.gradient, -1e-7)

    return torch.inference_mode()(step)


def _streamed(folder: str, size: str, dtype: str, batch: int, tokens: int) -> tuple[Callable[[], None], MappedBlocks]:
    model = streaming.load(folder, dtype=dtype).model
    blocks = blocks_of(model)
    assert blocks is not None  # it was loaded so
    return _stepper(of_model(model, size, dtype, batch, tokens), make_space(model, "streamed", "nearest", None)), blocks


def _peaks(folder: str, size: str, dtype: str, batch: int, tokens: int, threads: int) -> Row:
    """The memory of a process that loads a model and takes steps, above the one before: anonymous pages, which only
    this process can give back, and all resident ones, with pages of files.
    """
    torch.set_num_threads(threads)
    kinds = (ANONYMOUS, RESIDENT)
    before = memory_now(*kinds)
    with Peak(*kinds) as whole:
        step, blocks = _streamed(folder, size, dtype, batch, tokens)
        blocks.evict = True
        with Peak(*kinds) as stepping:
            for _ in range(STEPS):
                step()
    blank = loading.skeleton(folder, dtype).model
    row: Row = {"empty_anonymous_mb": before[0] / MIB, "empty_resident_mb": before[1] / MIB}
    row |= {"anonymous_mb": (whole.highest[0] - before[0]) / MIB, "step_mb": (stepping.highest[1] - before[1]) / MIB}
    return row | {"model_mb": blocks.size / MIB, "bound_mb": sum(in_memory(blank).values()) / MIB}


def _seconds(folder: str, size: str, dtype: str, batch: int, tokens: int, threads: int, repetitions: int) -> Row:
    torch.set_num_threads(threads)
    held = loading.load(folder, dtype=dtype).model
    in_ram = _stepper(of_model(held, size, dtype, batch, tokens), make_space(held, "paired", "nearest", None))
    step, blocks = _streamed(folder, size, dtype, batch, tokens)

    def drop() -> None:
        for file in blocks.all:
            file.drop()

    def from_disk() -> None:
        blocks.evict = True
        pool(1, "zobench-fetch", None).submit(blocks.fetch, 0)  # as the step before it would at its end
        step()
        for file in blocks.all:
            file.leave()
        for file in blocks.all:  # its end is when what was written is on disk
            file.sync()
        blocks.evict = False

    def disk_alone() -> None:
        for file in blocks.all:
            file.copy_over()

    jobs = {
        MEMORY: in_ram,
        CACHED: step,
        DISK: disk_alone,
        UNCACHED: from_disk,
    }
    before = {CACHED: step, DISK: drop, UNCACHED: drop}  # a step brings all into the page cache
    for job in (in_ram, step):  # the first step has no step before it to write
        job()
    spent: dict[str, list[float]] = {name: [] for name in jobs}
    times = alternating({name: _counted(job, spent[name]) for name, job in jobs.items()}, repetitions, before)
    slower = [max(pair) for pair in zip(times[DISK], times[MEMORY], strict=True)]
    return {
        "seconds": {name: statistics.median(each) for name, each in times.items()},
        "fastest": {name: min(each) for name, each in times.items()},
        "processor_seconds": {name: statistics.median(each) for name, each in spent.items()},
        "cached_ratio": _ratio(times[CACHED], times[MEMORY]),
        "uncached_memory_ratio": _ratio(times[UNCACHED], times[MEMORY]),
        "uncached_ratio": _ratio(times[UNCACHED], times[DISK]),
        "uncached_of_slower": _ratio(times[UNCACHED], slower),
        "repetitions": repetitions,
    }


def _counted(job: Callable[[], None], spent: list[float]) -> Callable[[], None]:
    """The job, which notes the processor seconds of all threads, in the kernel too, that a call takes."""

    def call() -> None:
        began = time.process_time()
        job()
        spent.append(time.process_time() - began)

    return call


def _ratio(times: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of neighbouring calls, which other programs slow alike."""
    return statistics.median(a / b for a, b in zip(times, others, strict=True))


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = []
    for row in rows:
        if row["kind"] == "bench-streamed":
            lines.append(f"{'a step':42}{'seconds':>9}{'fastest':>9}{'processor':>11}")
            lines += [
                f"{name:42}{seconds:9.2f}{row['fastest'][name]:9.2f}{row['processor_seconds'][name]:11.2f}"
                for name, seconds in row["seconds"].items()
            ]
            lines.append(f"{'cached, of the step in memory':42}{row['cached_ratio']:9.2f}")
            lines.append(f"{'not cached, of the disk alone':42}{row['uncached_ratio']:9.2f}")
            lines.append(f"{'not cached, of the slower of both':42}{row['uncached_of_slower']:9.2f}")
        else:
            lines.append(f"{'memory above an empty process':42}{'MiB':>9}")
            lines.append(f"{'weights on disk':42}{row['model_mb']:9.0f}")
            lines.append(f"{'anonymous, loading and steps':42}{row['anonymous_mb']:9.0f}")
            lines.append(f"{'resident in steps, with pages of files':42}{row['step_mb']:9.0f}")
            lines.append(f"{'three blocks, the rest, two tensors':42}{row['bound_mb']:9.0f}")
    return "\n".join(lines)


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows of times as a table of a page, with the medians of ratios of neighbouring calls."""
    lines = [
        "| model | a step | seconds | fastest | processor seconds | of the step in memory | of the disk alone | of the "
        "slower of both |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in (row for row in rows if row["kind"] == "bench-streamed"):
        of = [row[name] for name in ("cached_ratio", "uncached_memory_ratio", "uncached_ratio", "uncached_of_slower")]
        ratios = {CACHED: f"{of[0]:.2f} |  | ", UNCACHED: " | ".join(f"{ratio:.2f}" for ratio in of[1:])}
        for name, seconds in row["seconds"].items():
            lines.append(
                f"| {row['size']}, {row['dtype']}, {row['batch']} x {row['tokens']} | {name} | {seconds:.2f} | "
                f"{row['fastest'][name]:.2f} | {row['processor_seconds'][name]:.2f} | {ratios.get(name, ' |  | ')} |"
            )
    return "\n".join(lines)
