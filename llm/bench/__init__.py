"""Time and memory of a step, side by side with the published loop, bare forwards and inference."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch

from llm.bench import adapters, memory, methods, probes, scaling, slopes, steps, sweeps
from llm.bench.setting import SIZES, setting
from llm.model.language_model import DTYPES
from zobench.law import LAWS
from zobench.naming import require_known
from zobench.random import native
from zobench.run.options import option
from zobench.run.progress import note
from zobench.run.records import Row, Run

PARTS = ("steps", "memory", "sweeps", "adapters", "scaling", "slopes", "probes", "methods")
SCALED = tuple(size for size in SIZES if size.startswith("opt-"))


@dataclass(frozen=True)
class StepBenchOptions:
    """Options of `python -m llm bench`."""

    parts: tuple[str, ...] = option(PARTS, "parts of the benchmark")
    size: str = option("opt-125m", f"{', '.join(SIZES)}: OPT of this size with random weights")
    methods: tuple[str, ...] = option((), "methods whose steps are timed; by default all of the table")
    laws: tuple[str, ...] = option(("gaussian", "rademacher"), "laws of directions whose steps are timed")
    batch: int = option(16, "examples in the minibatch of a step")
    tokens: int = option(48, "tokens of a prompt")
    dtype: str = option("float32", "float32, bfloat16")
    repetitions: int = option(7, "alternating repetitions; the median counts")
    entries: int = option(50_000_000, "entries of the parameter on which the sweeps are timed")
    scaling_sizes: tuple[str, ...] = option(SCALED, "sizes of the scaling table")
    scaling_batches: tuple[int, ...] = option(
        (4, 16), "batches of the scaling table; the first is timed with all lengths"
    )
    scaling_lengths: tuple[int, ...] = option(
        (32, 128, 512), "lengths of the scaling table; the first is timed with all batches"
    )
    scaling_repetitions: int = option(3, "repetitions of the scaling table")
    probe_cells: tuple[str, ...] = option(
        ("1x16", "4x32", "16x48"), "minibatches of the probes table, examples x tokens"
    )
    probe_directions: int = option(8, "directions of rank 1 of the probes table, with two points each")
    out: str = option("runs/llm-bench", "folder of the results; every call appends rows")


def run(options: StepBenchOptions) -> None:
    """Time a MeZO step of each engine against the published four-walk loop and two bare forwards, and its memory."""
    _check(options)
    record = Run(options.out, {"command": "bench", **asdict(options)})
    note(f"{torch.get_num_threads()} threads; native sweep: {native.status()}")
    measures = _measures(options)
    for part in (part for part in PARTS if part in options.parts):
        measured, table = measures[part]
        rows = measured()
        for row in rows:
            record.append(row)
        print(f"\n{table(rows)}", flush=True)
    note(f"rows: {record.folder / 'rows.jsonl'}")


Measure = tuple[Callable[[], list[Row]], Callable[[Sequence[Row]], str]]


def _measures(options: StepBenchOptions) -> dict[str, Measure]:
    """Each part: what measures it, and what prints it."""
    size, dtype, batch, tokens, count = (
        options.size, options.dtype, options.batch, options.tokens, options.repetitions
    )  # fmt: skip
    lengths, batches = options.scaling_lengths, options.scaling_batches
    return {
        "steps": (lambda: steps.measure(setting(size, dtype, batch, tokens), options.laws, count), steps.table),
        "memory": (lambda: memory.measure(size, dtype, batch, tokens), memory.table),
        "sweeps": (lambda: sweeps.measure(options.entries, count), sweeps.table),
        "adapters": (lambda: adapters.measure(lambda: setting(size, dtype, batch, tokens), count), adapters.table),
        "scaling": (
            lambda: scaling.measure(options.scaling_sizes, batches, lengths, options.scaling_repetitions),
            scaling.table,
        ),
        "probes": (
            lambda: probes.measure(size, dtype, probes.cells(options.probe_cells), options.probe_directions, count),
            probes.table,
        ),
        "methods": (
            lambda: methods.measure(setting(size, dtype, batch, tokens), options.methods, count),
            methods.table,
        ),
        "slopes": (lambda: slopes.measure(size, dtype, batch, tokens, count), slopes.table),
    }


def _check(options: StepBenchOptions) -> None:
    numbers = (
        options.repetitions,
        options.scaling_repetitions,
        options.batch,
        options.entries,
        options.probe_directions,
    )
    if min(*numbers, *options.scaling_batches) < 1 or min(options.tokens, *options.scaling_lengths) < 2:
        raise ValueError(f"{options}: give repetitions, batches and entries of 1 or more, and tokens of 2 or more")
    probes.cells(options.probe_cells)
    methods.chosen(options.methods)
    for names, known, what in (
        (options.parts, PARTS, "part"),
        ((options.size, *options.scaling_sizes), SIZES, "size"),
        ((options.dtype,), DTYPES, "dtype"),
        (options.laws, LAWS, "law"),
    ):
        for name in names:
            require_known(name, known, what)
