"""Cells of the bench that tell most, each beside the claims of the literature."""

from collections.abc import Iterator
from typing import Any

import torch

from llm.bench import cell, compiled, probes
from llm.bench.setting import BenchSetting, random_opt, setting
from llm.cost.live import size_of
from llm.gpu.job import Here, SkippedError
from llm.model.compiled import HOW
from llm.model.free_memory import free_memory
from zobench.run.records import Row

CELLS = (  # size, dtype, examples, tokens; what tells most comes first
    ("opt-1.3b", "bfloat16", 16, 128), ("opt-13b", "bfloat16", 16, 128), ("opt-13b", "bfloat16", 1, 2048),
    ("opt-1.3b", "float32", 16, 128), ("opt-13b", "float32", 16, 128), ("opt-1.3b", "bfloat16", 8, 1024),
    ("opt-13b", "bfloat16", 8, 1024), ("opt-1.3b", "bfloat16", 1, 2048), ("opt-1.3b", "float32", 8, 1024),
    ("opt-30b", "bfloat16", 1, 2048), ("opt-125m", "bfloat16", 16, 128), ("opt-6.7b", "bfloat16", 1, 2048),
)  # fmt: skip
SMALL = (("opt-1m", "float32", 2, 16), ("opt-1m", "bfloat16", 1, 32), ("opt-30b", "float32", 16, 128))
"""Those of a trial on a CPU; the last one does not fit."""
ROOM = 1.5
"""Times the weights that must be free: the published loop holds a few more of the largest parameter."""
ZO2_GB = {"opt-1.3b": 3.75, "opt-2.7b": 4.14, "opt-6.7b": 4.99, "opt-13b": 6.18, "opt-30b": 8.86}
"""Memory of a step as ZO2's README has it, in GB: the weights are on the host (arXiv 2503.12668)."""
AIMS = {("float32", False): 1.15, ("bfloat16", False): 1.25, ("float32", True): 1.10, ("bfloat16", True): 1.10}
"""(dtype, 8,192 tokens or more) -> at most this multiple of two bare forwards: an aim, not a measurement."""
PROBED = (
    ("opt-1.3b", "bfloat16", 1, 16), ("opt-1.3b", "bfloat16", 4, 32), ("opt-1.3b", "bfloat16", 16, 48),
    ("opt-13b", "bfloat16", 1, 16), ("opt-13b", "bfloat16", 4, 32), ("opt-1.3b", "float32", 4, 32),
)  # fmt: skip
COMPILED = (("opt-125m", "float32", 4, 32), ("opt-1.3b", "float32", 16, 128), ("opt-1.3b", "bfloat16", 4, 32))
PROBES = 8
"""Directions of rank 1, with two points each."""


def measured(here: Here, size: str, dtype: str, batch: int, tokens: int) -> Iterator[Row]:
    """Yield the rows of a cell, and its claims.

    Raises:
        SkippedError: the device has too little free memory.
    """
    bench = _fitting(here, size, dtype, batch, tokens)
    rows = []
    for row in cell.measure(bench, ["gaussian"], 3 if here.small else 5):
        rows.append(row)
        yield row
    yield from claims(rows)
    print(f"{size}, {dtype}, {batch} x {tokens} tokens\n{cell.table(rows)}", flush=True)


def _fitting(here: Here, size: str, dtype: str, batch: int, tokens: int) -> BenchSetting:
    """The setting, if the device has room for it."""
    weights, free = size_of(random_opt(size, dtype, "meta").parameters()), free_memory(here.device)
    if free is not None and ROOM * weights > free:
        raise SkippedError(f"{size} in {dtype} takes {weights / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
    return setting(size, dtype, batch, tokens, device=here.device)


def probed(here: Here, size: str, dtype: str, batch: int, tokens: int) -> Iterator[Row]:
    """Yield the rows of all points of low-rank directions in one forward, beside as many bare forwards.

    Raises:
        SkippedError: the device has too little free memory.
    """
    rows = probes.rows_of(_fitting(here, size, dtype, batch, tokens), PROBES, 3 if here.small else 5)
    yield from rows
    print(f"{size}, {dtype}, {batch} x {tokens} tokens\n{probes.table(rows)}", flush=True)


def compiled_steps(here: Here, size: str, dtype: str, batch: int, tokens: int) -> Iterator[Row]:
    """Yield the rows of a step with the forward uncompiled, compiled by layers, and as CUDA graphs.

    Raises:
        SkippedError: the device has too little free memory.
    """
    rows = []
    for row in compiled.measure(_fitting(here, size, dtype, batch, tokens), tuple(HOW), 3 if here.small else 7):
        rows.append(row)
        yield row
    print(f"{size}, {dtype}, {batch} x {tokens} tokens\n{compiled.table(rows)}", flush=True)


def claims(rows: list[Row]) -> Iterator[Row]:
    """Yield a row for each claim and aim about these rows of one cell, with the number measured beside it."""
    peaks = {row["job"]: row["peak_mb"] for row in rows if row.get("peak_mb")}
    ratios = {row["job"]: row["of_limit"] for row in rows if row["kind"] == "bench-step"}
    speeds = {row["job"]: row["speedup"] for row in rows if row["kind"] == "bench-step"}
    about = {name: rows[0][name] for name in ("size", "dtype", "batch", "tokens")}
    best = min((job for job in ratios if "," in job), key=lambda job: ratios[job])
    ours = min(peaks[job] for job in ratios if "," in job)
    large = about["batch"] * about["tokens"] >= 8192
    found: list[tuple[str, str, float | None, float | None]] = [
        ("MeZO (arXiv 2305.17333)", "memory of a step, of inference", 1.0, ours / peaks["inference"]),
        ("MeZO (arXiv 2305.17333)", "memory of AdamW, of a step", 12.0, _over(peaks.get("adamw"), ours)),
        ("ZO2 (README, weights on the host)", "memory of a step, GB", ZO2_GB.get(about["size"]), ours * 2**20 / 1e9),
        ("aim", f"step, of two forwards ({best})", AIMS[about["dtype"], large], ratios[best]),
        ("none", f"times faster than the published loop ({best})", None, speeds[best]),
    ]
    for source, what, claimed, measured in found:
        yield {"kind": "gpu-claim", **about, "source": source, "claim": what, "claimed": claimed, "measured": measured}


def _over(one: float | None, other: float) -> float | None:
    return None if one is None else one / other


def swept(here: Here, dtype: str) -> Iterator[Row]:
    """Yield the rows of sweeps beside a copy of as much memory."""
    from llm.bench import sweeps

    entries = 1 << 20 if here.small else 1 << 28
    laws: Any = ("gaussian", "rademacher")
    yield from sweeps.measure(entries, 3 if here.small else 7, here.device, laws, dtype)


def reads(here: Here) -> Iterator[Row]:
    """Yield how often a step of each engine makes the host wait for a CUDA device, as torch counts it."""
    if not here.device.startswith("cuda"):
        raise SkippedError("torch counts waiting on CUDA alone")
    import warnings

    from llm.bench.setting import stepper

    bench = setting("opt-1m", "float32", 4, 16, device=here.device)
    for engine in cell.ENGINES:
        step = stepper(bench, engine, "gaussian")
        step()
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        places = sorted({f"{w.filename.rpartition('/')[2]}:{w.lineno}" for w in warned})
        yield {"kind": "gpu-waits", "engine": engine, "waits": len(warned), "places": places}
