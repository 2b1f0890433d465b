"""The options of benchmarks: `bench`, `profile`, `gpu`."""

from dataclasses import dataclass

from zobench.run.options import option

PARTS = (
    *("steps", "memory", "sweeps", "adapters", "scaling", "slopes", "probes", "methods", "compiled"),
    *("quantised", "padding", "distributed", "streamed", "limited"),
)
GPU_PARTS = (
    *("tests", "directions", "engines", "replay", "smollm2", "cells", "streamed", "waits", "sweeps", "probes"),
    "compiled",
)
SIZES = {  # hidden, layers, heads, vocabulary
    "tiny-opt": (128, 4, 4, 2000),
    "opt-1m": (64, 4, 4, 8192),
    "opt-10m": (256, 6, 4, 16384),
    "opt-125m": (768, 12, 12, 50272),
    "opt-350m": (1024, 24, 16, 50272),
    "opt-1.3b": (2048, 24, 32, 50272),
    "opt-6.7b": (4096, 32, 32, 50272),
    "opt-13b": (5120, 40, 40, 50272),
    "opt-30b": (7168, 48, 56, 50272),
}
SCALED = tuple(size for size in SIZES if size.startswith("opt-"))


@dataclass(frozen=True)
class StepBenchOptions:
    """Measure time and memory of a MeZO step with each engine, beside the published loop and two forward passes."""

    parts: tuple[str, ...] = option(PARTS, "parts of the benchmark")
    size: str = option("opt-125m", f"{', '.join(SIZES)}: OPT of this size with random weights")
    methods: tuple[str, ...] = option((), "methods whose steps are timed; by default all of the table")
    laws: tuple[str, ...] = option(("gaussian", "rademacher"), "laws of directions whose steps are timed")
    batch: int = option(16, "examples in the minibatch of a step")
    tokens: int = option(48, "tokens of a prompt")
    dtype: str = option("float32", "float32, bfloat16")
    repetitions: int = option(7, "alternating repetitions; the median counts")
    entries: int = option(50_000_000, "entries of the parameter on which the sweeps are timed")
    quantised_models: tuple[str, ...] = option(
        ("smollm2-135m", "opt-350m"), f"models of the part quantised: smollm2-135m, {', '.join(SIZES)}; random weights"
    )
    quantised_formats: tuple[str, ...] = option(
        ("int8", "int4", "int4-asymmetric", "int2"), "formats of the part quantised"
    )
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
    compile: tuple[str, ...] = option(("layers",), "compilations of the part compiled: layers, cuda-graphs")
    padding_model: str = option("tiny-opt", "model of the padding table")
    padding_tasks: tuple[str, ...] = option(("spam", "sentences"), "tasks of the padding table")
    padding_data: str | None = option(None, "folder of the tasks' files; by default the shipped files")
    streamed_model: str | None = option(
        None,
        "folder of a model by `random-model` for the parts streamed and limited; by default one of --size is made and "
        "removed",
    )
    out: str = option("runs/llm-bench", "folder of the results; every call appends rows")


@dataclass(frozen=True)
class RandomModelOptions:
    """Write a model of a published size with random weights, for measurements of time and memory.

    It is written layer by layer, so that the memory holds one layer at a time.
    """

    size: str = option("opt-1.3b", f"{', '.join(SIZES)}: OPT of this size")
    dtype: str = option("bfloat16", "float32, bfloat16 or float16")
    seed: int = option(0, "seed of the weights")
    out: str = option("runs/random-model", "folder of the model: a new one")


@dataclass(frozen=True)
class ProfileOptions:
    """Print and record the seconds that drawing, perturbing and each part of the model take in a MeZO step."""

    size: str = option("opt-125m", f"{', '.join(SIZES)}: OPT of this size with random weights")
    engines: tuple[str, ...] = option(
        ("plain", "in-forward"), "engines: plain, in-forward (engines that use one Python thread)"
    )
    laws: tuple[str, ...] = option(("gaussian", "rademacher"), "laws of directions")
    batch: int = option(16, "examples in the minibatch of a step")
    tokens: int = option(48, "tokens of a prompt")
    dtype: str = option("float32", "float32, bfloat16")
    steps: int = option(5, "number of steps over which times are averaged")
    out: str = option("runs/llm-profile", "folder of the results; every call appends rows")


@dataclass(frozen=True)
class GpuOptions:
    """Check that a device draws the same directions as the CPU and trains alike, and measure its memory and time."""

    minutes: float = option(8.0, "minutes that the command may take")
    device: str = option("cuda", "cuda, cuda:1, ...; cpu tries every part at a small size")
    parts: tuple[str, ...] = option(GPU_PARTS, "parts of the command")
    beside: str = option("build/gpu", "folder of the files of SmolLM2 and SST-2; docs/gpu.md says how to make it")
    prepare: str | None = option(
        None, "only make the folder --beside, with SST-2 from the subfolder sst2 of this folder"
    )
    out: str = option("runs/gpu", "folder of the results; every call appends rows")
