"""Quantised models against dense ones: time of a forward, bytes held, and peak memory of a step."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from llm.bench.memory import MIB, Peak, in_a_process
from llm.bench.setting import BenchSetting, of_model, opt_configuration
from llm.model.free_memory import give_back
from llm.model.language_model import DTYPES
from llm.model.trainable import select
from llm.options.bench import SIZES
from llm.quantised import Choice, Format, QuantisedLinear
from llm.quantised.blank import blank, put_
from llm.quantised.model import held_bytes, replace_, to_quantise
from llm.steppers.zeroth_order import ZerothOrderStepper
from zobench import derive, methods
from zobench.rule import SGD
from zobench.run.records import Row
from zobench.run.timing import alternating

MODELS = ("smollm2-135m", *SIZES)
FORMATS = ("int8", "int4", "int4-asymmetric", "int2")
BAR = 1.5
"""The most that a quantised forward may take, in dense ones."""
PEAK = "bench-quantised-peak"
SHARE = 0.35
"""The most bytes of int4 layers, in those of bfloat16."""


def configuration(name: str) -> Any:
    """Return the configuration of a model of a published size."""
    from transformers import LlamaConfig

    if name == "smollm2-135m":
        heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True}
        sizes = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "vocab_size": 49152}
        return LlamaConfig(**sizes, **heads, max_position_embeddings=2048)
    return opt_configuration(name)


@torch.no_grad()
def random_model(name: str, dtype: str, quantize: str | None) -> Any:
    """Return the model with random weights, quantised layer by layer: no dense model is held."""
    from transformers import AutoModelForCausalLM

    model = blank(lambda: AutoModelForCausalLM.from_config(configuration(name), dtype=DTYPES[dtype]))
    numbers = torch.Generator().manual_seed(0)

    def drawn(shape: Sequence[int], kind: torch.dtype = torch.float32) -> torch.Tensor:
        made = torch.empty(*shape, dtype=kind)
        for rows in made.split(1024):  # in parts, so that no float32 copy of an embedding counts as the model's memory
            rows.copy_(torch.randn(rows.shape, generator=numbers, dtype=torch.float32).mul_(0.02))
        return made

    if quantize is not None:
        format = Choice(quantize).format
        assert format is not None
        for layer, module in to_quantise(model).items():
            bias = None if module.bias is None else nn.Parameter(torch.zeros(module.out_features, dtype=DTYPES[dtype]))
            replace_(model, layer, QuantisedLinear(format, format.quantise(drawn(module.weight.shape)), bias))
            give_back()
    for parameter, value in list(model.named_parameters()):
        if value.is_meta:
            norm = value.ndim == 1 and parameter.endswith("weight")
            kind = DTYPES[dtype]
            put_(model, parameter, torch.ones(value.shape, dtype=kind) if norm else drawn(value.shape, kind))
    return model.eval()


def made(name: str, dtype: str, quantize: str | None, batch: int, tokens: int) -> BenchSetting:
    """Return the setting of a model, with what is trained of it."""
    model = random_model(name, dtype, quantize)
    select(model, ())
    return of_model(model, name, dtype, batch, tokens)


def measure(
    models: Sequence[str], formats: Sequence[str], dtype: str, batch: int, tokens: int, repetitions: int
) -> Iterator[Row]:
    """Return the rows of bytes, peaks and times as they are measured, each model by itself."""
    yield from _native(dtype, batch * tokens, repetitions)
    for name in models:
        yield from _peaks(name, batch, tokens)
        yield from _times(name, formats, dtype, batch, tokens, repetitions)


def _times(name: str, formats: Sequence[str], dtype: str, batch: int, tokens: int, repetitions: int) -> Iterator[Row]:
    """Forwards of the loss, dense and quantised in turn."""
    about = {"model": name, "dtype": dtype, "batch": batch, "tokens": tokens, "threads": torch.get_num_threads()}
    dense = _forward(made(name, dtype, None, batch, tokens))
    for kind in formats:
        here = made(name, dtype, kind, batch, tokens)
        yield _bytes(name, kind, here.model)
        seconds = alternating({"dense": dense, "quantised": _forward(here)}, repetitions)
        pairs = zip(seconds["quantised"], seconds["dense"], strict=True)
        ratio = statistics.median(one / other for one, other in pairs)
        row = {"kind": "bench-quantised-time", **about, "format": kind, "seconds": seconds["quantised"]}
        yield {**row, "dense_seconds": seconds["dense"], "of_dense": ratio, "bar": BAR, "held": ratio <= BAR}


def _forward(here: BenchSetting) -> Callable[[], object]:
    """A forward of the loss, which ran once."""
    job = torch.inference_mode()(here.loss)
    job()
    return job


def _native(dtype: str, rows: int, repetitions: int) -> list[Row]:
    """Torch's own product with packed codes of 4 bits in one layer of SmolLM2's size, beside tiles and dense."""
    format, x = Format("int4", 4, False), torch.randn(rows, 576, dtype=DTYPES[dtype])
    layer = QuantisedLinear(format, format.quantise(torch.randn(1536, 576, dtype=torch.float32) * 0.02))
    dense = layer.weight.detach().to(x.dtype)
    codes = (format.unpack(layer.codes).flatten(1).int() + format.shift).contiguous()
    packed = torch._convert_weight_to_int4pack_for_cpu(codes, 1)
    scales = torch.stack([layer.scales.detach().T, torch.zeros_like(layer.scales.detach().T)], -1).to(x.dtype)
    jobs: dict[str, Callable[[], object]] = {
        "dense": lambda: nn.functional.linear(x, dense),
        "tiles": lambda: layer(x),
        "native": lambda: torch._weight_int4pack_mm_for_cpu(x, packed, 32, scales.contiguous()),
    }
    with torch.inference_mode():
        for job in jobs.values():
            job()
        seconds = alternating(jobs, repetitions)
    about = {"kind": "bench-quantised-product", "dtype": dtype, "rows": rows, "layer": "1536 x 576, int4"}
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    return [
        {**about, "product": name, "seconds": t, "of_dense": middle[name] / middle["dense"]}
        for name, t in seconds.items()
    ]


def _bytes(name: str, quantize: str, model: Any) -> Row:
    """The bytes of the quantised layers while their scales are trained."""
    held = held_bytes(model)
    share = held["quantised_bytes"] / held["bfloat16_bytes"]
    row = {"kind": "bench-quantised-bytes", "model": name, "format": quantize, **held, "of_bfloat16": share}
    return {**row, "bar": SHARE, "held": share <= SHARE} if quantize == "int4" else row


def _peaks(name: str, batch: int, tokens: int) -> Iterator[Row]:
    """The highest resident size of two steps of MeZO, each in a process of its own, above one with its imports."""
    threads = torch.get_num_threads()
    jobs = [("float32", None), ("bfloat16", None), ("float32", "int4"), ("bfloat16", "int4")]
    for dtype, quantize in jobs:
        found = in_a_process(f"{name} in {quantize or dtype}", child, name, dtype, quantize, batch, tokens, threads)
        about = {"model": name, "dtype": dtype, "format": quantize, "batch": batch, "tokens": tokens}
        yield {"kind": PEAK, **about, **found}


def child(name: str, dtype: str, quantize: str | None, batch: int, tokens: int, threads: int) -> Row:
    """Build the model and take two steps; the peak counts all of it."""
    torch.set_num_threads(threads)
    with Peak() as empty:
        configuration(name)
        from transformers import AutoModelForCausalLM

        assert AutoModelForCausalLM
    with Peak() as peak:
        here = made(name, dtype, quantize, batch, tokens)
        stepper = ZerothOrderStepper(here.model, methods.make("mezo"), SGD(1e-7), "in-forward", most=100.0)
        for step in range(2):
            stepper.step(derive("bench", step), here.loss)
        stepper.settle()
    model = held_bytes(here.model)["model_bytes"] / MIB
    return {"peak_mb": peak.mb, "empty_mb": empty.mb, "above_mb": peak.mb - empty.mb, "model_mb": model}


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [f"{'quantised':52}{'of dense':>10}{'bar':>6}"]
    for row in (row for row in rows if "of_dense" in row):
        what = row.get("format") or f"{row['product']} product, {row['layer']}"
        lines.append(f"{what + ', ' + row['dtype']:52}{row['of_dense']:10.3f}{row.get('bar', ''):>6}")
    lines.append(f"{'bytes of quantised layers':52}{'of bfloat16':>12}{'MiB':>9}")
    for row in (row for row in rows if "of_bfloat16" in row):
        mib = row["quantised_bytes"] / MIB
        lines.append(f"{row['model'] + ', ' + row['format']:52}{row['of_bfloat16']:12.3f}{mib:9.1f}")
    lines.append(f"{'two MeZO steps':52}{'above MiB':>10}{'model MiB':>11}")
    for row in (row for row in rows if "above_mb" in row):
        what = f"{row['model']}, {row['dtype']}, {row['format'] or 'dense'}"
        lines.append(f"{what:52}{row['above_mb']:10.0f}{row['model_mb']:11.0f}")
    return "\n".join(lines)


def markdown(rows: Sequence[Row]) -> str:
    """Return the peaks as a table of a page, a line a model and job."""
    lines = [
        "| model, random weights | step | bytes of the model, MiB | peak above an empty process, MiB |",
        "|---|---|---|---|",
    ]
    for row in (row for row in rows if row["kind"] == PEAK):
        step = f"QZO, {row['format']}, the rest in" if row["format"] else "MeZO,"
        setting = f"{row['model']}, {row['batch']} x {row['tokens']} tokens"
        lines.append(f"| {setting} | {step} {row['dtype']} | {row['model_mb']:,.0f} | {row['above_mb']:,.0f} |")
    return "\n".join(lines)
