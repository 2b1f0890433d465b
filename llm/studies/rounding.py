"""The share of a step in 16 bits that remains after rounding, for each kind of rounding."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

import torch
from torch import Tensor

from llm import tasks
from llm.model import loading
from llm.model.language_model import DTYPES
from llm.objective import choose
from llm.options.studies import RoundingOptions
from llm.steppers.engines import make_space
from zobench import Estimator, derive, methods, query
from zobench.naming import require_known
from zobench.numbers import require_rates
from zobench.random import streams
from zobench.run.options import unnamed
from zobench.run.progress import note
from zobench.run.records import Row, Run
from zobench.space import ModuleSpace
from zobench.space.motion import StepComparison

WAYS = {  # engine, rounding, dtype held
    "in-place": ("plain", "nearest", None),
    "nearest": ("in-forward", "nearest", None),
    "stochastic": ("in-forward", "stochastic", None),
    "float32 master": ("in-forward", "nearest", torch.float32),
}
OLD_NAMES = {"walk, nearest": "in-place"}
"""Names of ways in configurations of earlier versions."""


def run(options: RoundingOptions) -> None:
    """Run the command: RoundingOptions says what it does."""
    if options.steps < 1 or options.batch < 1 or not options.rates or not options.ways:
        raise ValueError(f"{options}: give steps and batch of 1 or more, a rate and a way")
    require_rates("--rates", options.rates)
    require_known(options.dtype, DTYPES, "dtype")
    options = replace(options, ways=tuple(OLD_NAMES.get(way, way) for way in options.ways))
    for way in options.ways:
        require_known(way, WAYS, "way of rounding")
    record = Run(options.out, {"command": "rounding", **asdict(options)}, unnamed(RoundingOptions))
    print(f"{'rounding':18}{'lr':>9}{'step':>6}{'moved':>9}{'cosine':>9}{'length':>9}")
    for way in options.ways:
        for rate in options.rates:
            for row in _steps(options, way, rate):
                record.append(row)
                numbers = "".join(f"{row[name]:9.4f}" for name in ("moved", "cosine", "length"))
                print(f"{way:18}{rate:9.0e}{row['step']:6}{numbers}", flush=True)
    note(f"rows: {record.folder / 'rows.jsonl'}")


def _steps(options: RoundingOptions, way: str, rate: float) -> list[Row]:
    engine, rounding, held = WAYS[way]
    dtype = DTYPES[options.dtype]
    held_as = "float32" if held else options.dtype
    language_model = loading.load(options.model, options.device, held_as, options.trust_remote_code)
    task = tasks.find(options.task)
    minimised = choose(options.objective, task)(language_model, max_tokens=options.max_tokens, bos=options.bos)
    train = minimised.encode(tasks.split(task, options.data, 10 * options.batch, 1, 1, options.seed).train)
    space = make_space(language_model.model, engine, rounding, dtype if held else None)
    rows = []
    for step in range(options.steps):
        order = streams.uniform(derive("rounding", options.seed, step), (len(train),)).argsort()
        batch = [train[i] for i in order[: options.batch].tolist()]
        key = derive("rounding", "direction", options.seed, step)
        estimator, losses = methods.make("mezo", epsilon=options.epsilon), partial(minimised.losses, batch)
        compared = compare(space, estimator, losses, key, rate)
        about = {"kind": "motion", "model": options.model, "dtype": options.dtype, "engine": engine, "rounding": way}
        rows.append({**about, "step": step, "lr": rate, **compared})
    return rows


def compare(space: ModuleSpace, estimator: Estimator, loss: Callable[[], Tensor], key: int, rate: float) -> Row:
    """Take one step, and return the share of entries it moved, and the cosine and the ratio of lengths of the realised
    and the intended step, perturbing and restoring included.
    """
    before = space.vector()
    estimate = query(space, estimator, loss, key, estimator.init())
    space.step_(estimate.gradient, -rate)
    space.settle_()
    compared = StepComparison(walked=True)
    compared.add(space.dense(estimate.gradient) * -rate, space.vector() - before)
    return {"loss": float(estimate.losses.mean()), **compared.motion.row}
