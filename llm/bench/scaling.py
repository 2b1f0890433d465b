"""The growth of the cost of a step and of a forward with parameters, examples and tokens."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
import torch

from llm.bench.setting import BenchSetting, setting, stepper
from llm.options.bench import SIZES
from zobench.run.records import Row
from zobench.run.timing import alternating

ENGINE = "in-forward, paired"


def measure(sizes: Sequence[str], batches: Sequence[int], lengths: Sequence[int], repetitions: int) -> list[Row]:
    """Return a row for each size, batch, length and job ("forward", "step"), and a row of fitted exponents a job.

    At every size the first batch is combined with every length, and every other batch with the first length.
    """
    rows: list[Row] = []
    for size in sizes:
        for batch, tokens in [*((batches[0], t) for t in lengths), *((b, lengths[0]) for b in batches[1:])]:
            rows += _timed(setting(size, "float32", batch, tokens), repetitions)
    return rows + [_fitted(rows, job) for job in ("forward", "step")]


def _timed(here: BenchSetting, repetitions: int) -> list[Row]:
    forward = torch.inference_mode()(here.loss)
    step = stepper(here, ENGINE, "gaussian", touched=True)
    forward(), step()
    timed = alternating({"forward": forward, "step": step}, repetitions)
    parameters = sum(p.numel() for p in here.model.parameters())
    about = {"kind": "bench-scaling", **here.about, "parameters": parameters, "engine": ENGINE}
    return [{**about, "job": job, "seconds": seconds} for job, seconds in timed.items()]


def _fitted(rows: Sequence[Row], job: str) -> Row:
    """Least squares of log seconds on the logarithms of parameters outside the embeddings, batch and tokens."""
    mine = [row for row in rows if row["job"] == job]
    inner = {size: 12 * hidden**2 * layers for size, (hidden, layers, _, _) in SIZES.items()}
    design = np.log([[inner[row["size"]], row["batch"], row["tokens"], math.e] for row in mine])
    seconds = np.log([statistics.median(row["seconds"]) for row in mine])
    solution, *_ = np.linalg.lstsq(design, seconds, rcond=None)
    residual = float(np.sqrt(np.mean((design @ solution - seconds) ** 2)))
    names = ("parameters_exponent", "batch_exponent", "tokens_exponent")
    exponents = dict(zip(names, map(float, solution[:3]), strict=True))
    return {"kind": "bench-scaling-fit", "job": job, **exponents, "residual": residual}


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [f"{'size':12}{'batch':>7}{'tokens':>8}{'forward s':>12}{'step s':>12}{'step / 2 forwards':>19}"]
    timed = [row for row in rows if row["kind"] == "bench-scaling"]
    for forward, step in zip(timed[::2], timed[1::2], strict=True):
        f, s = statistics.median(forward["seconds"]), statistics.median(step["seconds"])
        lines.append(f"{step['size']:12}{step['batch']:7}{step['tokens']:8}{f:12.4f}{s:12.4f}{s / f / 2:19.2f}")
    for row in rows[len(timed) :]:
        powers = ", ".join(f"{name.split('_')[0]}^{row[name]:.2f}" for name in row if name.endswith("_exponent"))
        lines.append(f"{row['job']}: {powers} (residual {row['residual']:.2f} in log)")
    return "\n".join(lines)
