"""Time and memory of a step, side by side with the published loop, bare forwards and inference."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

import torch

from llm.bench import (
    adapters,
    compiled,
    distributed,
    limited,
    memory,
    methods,
    padding,
    probes,
    quantised,
    scaling,
    slopes,
    steps,
    streamed,
    sweeps,
)  # fmt: skip
from llm.bench.setting import setting
from llm.model.compiled import HOW
from llm.model.language_model import DTYPES
from llm.options.bench import PARTS, SIZES, StepBenchOptions
from zobench.law import LAWS
from zobench.naming import require_known
from zobench.random import native
from zobench.run.progress import note, part_of
from zobench.run.records import Row, Run


def run(options: StepBenchOptions) -> None:
    """Run the command: StepBenchOptions says what it does."""
    _check(options)
    record = Run(options.out, {"command": "bench", **asdict(options)})
    note(f"{torch.get_num_threads()} threads; native sweep: {native.status()}")
    measures = _measures(options)
    for part in (part for part in PARTS if part in options.parts):
        measured, table = measures[part]
        with part_of(part):
            rows = []
            for row in measured():  # one by one: a part that is stopped keeps the rows that it has
                record.append(row)
                rows.append(row)
        print(f"\n{table(rows)}", flush=True)
    note(f"rows: {record.folder / 'rows.jsonl'}")


Measure = tuple[Callable[[], Iterable[Row]], Callable[[Sequence[Row]], str]]


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
        "quantised": (
            lambda: quantised.measure(options.quantised_models, options.quantised_formats, dtype, batch, tokens, count),
            quantised.table,
        ),
        "padding": (
            lambda: padding.measure(
                options.padding_model, dtype, options.padding_tasks, options.padding_data, batch, count
            ),
            padding.table,
        ),
        "compiled": (
            lambda: compiled.measure(setting(size, dtype, batch, tokens), options.compile, count),
            compiled.table,
        ),
        "distributed": (lambda: distributed.measure(size, dtype, batch, tokens, count), distributed.table),
        "slopes": (lambda: slopes.measure(size, dtype, batch, tokens, count), slopes.table),
        "streamed": (
            lambda: streamed.measure(size, dtype, batch, tokens, count, options.streamed_model),
            streamed.table,
        ),
        "limited": (lambda: limited.measure(size, dtype, batch, tokens, options.streamed_model), limited.table),
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
        (options.quantised_models, quantised.MODELS, "model of the part quantised"),
        (options.compile, HOW, "compilation"),
        (options.quantised_formats, quantised.FORMATS, "format of the part quantised"),
    ):
        for name in names:
            require_known(name, known, what)
