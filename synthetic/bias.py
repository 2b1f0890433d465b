"""The bias suite: measured bias, variance, error and cosine of each estimator beside the predictions."""

import math
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

import zobench
from synthetic import predictable, problems
from synthetic.options import BiasOptions
from zobench import FlatSpace, LineEstimator, Moments, derive, theory
from zobench.evaluations import evaluations_a_step
from zobench.problem import Problem
from zobench.run.progress import bar, note
from zobench.run.records import Run
from zobench.space import require_resolved

PLAIN, CONTROLLED = "plain", "controlled"


@dataclass(frozen=True)
class BiasCell:
    """One estimator on one problem at one point."""

    method: str
    estimator: LineEstimator
    name: str
    problem: Problem
    x: Tensor
    sampling: str

    @property
    def identity(self) -> dict[str, Any]:
        """The columns that distinguish this cell's row from the others."""
        return {
            "method": self.method,
            "problem": self.name,
            "epsilon": self.estimator.epsilon,
            "sampling": self.sampling,
        }


def run(options: BiasOptions) -> None:
    """Run the command: BiasOptions says what it does."""
    cells = _cells(options)
    record = Run(options.out, {"command": "bias", **asdict(options)})
    with bar(cells, unit="cell") as progress:
        for cell in progress:
            if record.find(kind="bias", **cell.identity):
                continue
            row = measure(cell, options)
            record.append(row)
            progress.set_postfix_str(f"{cell.method} {cell.name} eps {row['epsilon']:g}: bias {row['bias']:.2e}")
    print(table(record.rows))
    note(f"rows: {record.folder / 'rows.jsonl'}")


def _cells(options: BiasOptions) -> list[BiasCell]:
    if not options.methods or not options.epsilons or not options.problem:
        raise ValueError("--methods, --problem and --epsilons each need at least one entry")
    if options.samples < 1 or options.controlled_samples < 0:
        raise ValueError(
            f"samples is {options.samples}, controlled_samples {options.controlled_samples}: give 1, 0 or more"
        )
    cells = []
    for name in options.problem:
        problem = problems.make(name, options.dim, options.condition, options.rotated, seed=options.seed)
        x = problems.start(problem, options.seed)
        for method in options.methods:
            for epsilon in options.epsilons:
                estimator = predictable.parse(method, epsilon=epsilon)
                if estimator.perturbed_by is None:
                    raise ValueError(f"{method} has no epsilon to vary, and no bias: leave it out of --methods")
                require_resolved(FlatSpace(x), estimator.epsilon)
                theory.mse(estimator, problem, x, options.noise)  # refuses what a problem lacks, before any sampling
                for sampling in (PLAIN, CONTROLLED) if options.controlled_samples else (PLAIN,):
                    cells.append(BiasCell(method, estimator, name, problem, x, sampling))
    return cells


def measure(cell: BiasCell, options: BiasOptions) -> dict[str, Any]:
    """Return the row of one cell: measurement, standard errors, prediction."""
    began = time.perf_counter()
    gradient = cell.problem.gradient(cell.x)
    key = derive("bias", options.seed, cell.name, cell.estimator.epsilon.hex(), cell.sampling)
    if cell.sampling == PLAIN:
        sampled = zobench.moments(
            cell.estimator, cell.problem, cell.x, key, options.samples, options.noise, gradient=gradient
        )
        sampled = replace(sampled, mean=sampled.mean - gradient)
    else:
        single = replace(cell.estimator, n=1)
        sampled = zobench.controlled_moments(single, cell.problem, gradient, cell.x, key, options.controlled_samples)
    common = {
        "kind": "bias",
        **cell.identity,
        "estimator": repr(cell.estimator),
        "dim": cell.problem.dim,
        "samples": sampled.samples,
        "queries": evaluations_a_step(cell.estimator),
        "noise": options.noise,
        "gradient_norm": float(gradient.norm()),
    }
    spread = _spread(cell, sampled, options.noise) if cell.sampling == PLAIN else {}
    return {**common, **_bias(cell, sampled), **spread, "seconds": time.perf_counter() - began}


def _bias(cell: BiasCell, sampled: Moments) -> dict[str, float]:
    """The norm of the measured bias; its standard error is that along itself."""
    predicted = theory.bias(cell.estimator, cell.problem, cell.x)
    size = float(sampled.mean.norm())
    along = sampled.mean / size if size else torch.zeros_like(sampled.mean)
    floor = math.sqrt(sampled.covariance_trace / sampled.samples)
    off = float((sampled.mean - predicted).norm())
    return {
        "bias": size,
        "bias_error": sampled.error_along(along),
        "floor": floor,
        "predicted_bias": float(predicted.norm()),
        "bias_deviation": off / math.hypot(floor, _rounding(cell)),
    }


def _rounding(cell: BiasCell) -> float:
    """The resolution of float64 differences: rounding of f(x), over epsilon, and of the slopes themselves."""
    value, slope = cell.problem(cell.x).abs(), cell.problem.gradient(cell.x).norm()
    return torch.finfo(torch.float64).eps * float(value / cell.estimator.epsilon + slope * cell.problem.dim**0.5)


def _spread(cell: BiasCell, sampled: Moments, noise: float) -> dict[str, Any]:
    offset = float(sampled.mean @ sampled.mean)
    return {
        "covariance_trace": sampled.covariance_trace,
        "covariance_trace_error": sampled.covariance_trace_error,
        "predicted_covariance_trace": theory.covariance_trace(cell.estimator, cell.problem, cell.x, noise),
        # the squared norm of the sampling error of the mean, trace / samples, is no bias
        "mse": sampled.covariance_trace * (1 - 1 / sampled.samples) + offset,
        "mse_error": sampled.covariance_trace_error,
        "predicted_mse": theory.mse(cell.estimator, cell.problem, cell.x, noise),
        "prediction_terms": theory.coverage(cell.estimator, cell.problem),
        **_cosine(cell, sampled, noise),
    }


def _cosine(cell: BiasCell, sampled: Moments, noise: float) -> dict[str, float | None]:
    """The cosine of one estimate with the gradient; its prediction is that of linear f without noise."""
    assert sampled.cosine is not None
    predicted = None if noise else theory.cosine(cell.estimator, cell.problem.dim)
    names = ("mean_cosine", "mean_cosine_error", "cosine", "cosine_error")
    return {**dict(zip(names, sampled.cosine, strict=True)), "predicted_cosine": predicted}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as aligned text."""
    titles = f"{'bias':>11}{'+-':>9}{'predicted':>11}{'off':>6}"
    lines = [f"{'problem':10}{'method':16}{'epsilon':>8} {'sampling':11}{titles}"]
    for row in (r for r in rows if r["kind"] == "bias"):
        lines.append(
            f"{row['problem']:10}{row['method']:16}{row['epsilon']:8g} {row['sampling']:11}{row['bias']:11.3e}"
            f"{row['bias_error']:9.1e}{row['predicted_bias']:11.3e}{row['bias_deviation']:6.2f}"
        )
    return "\n".join(lines)
