"""The options of a training run."""

import math
from dataclasses import dataclass

from llm import baselines
from llm.loop.selection import SELECT
from llm.model import adapters
from llm.model.trainable import parse_rates
from llm.run.option_groups import (
    CallOptions,
    FolderOptions,
    LoopOptions,
    ModelOptions,
    SeedOptions,
    SizeOptions,
    SplitOptions,
    StepOptions,
)
from llm.steppers.first_order import FIRST_ORDER
from llm.steppers.make import check_method, check_steps
from llm.steppers.zeroth_order import ENGINES
from zobench.naming import require_known

ROWS = ("all", "touched")
ROUNDING = ("nearest", "stochastic", "master")
MOST_STEPS = 2**32 - 1


@dataclass(frozen=True)
class TrainOptions(
    CallOptions, FolderOptions, LoopOptions, SeedOptions, StepOptions, SizeOptions, SplitOptions, ModelOptions
):
    """Options of `python -m llm train`; `seconds` in rows are those of the steps, without evaluations."""


def check(options: TrainOptions) -> None:
    """Refuse what cannot work before anything is loaded."""
    check_method(options.method)
    adapters.check(options.adapter, options.gradient_checkpointing)
    parse_rates(options.rates)
    if options.gradient_checkpointing and options.method not in FIRST_ORDER and not baselines.known(options.method):
        raise ValueError(f"{options.method} has no backward pass: leave --gradient-checkpointing out")
    require_known(options.engine, ("auto", *ENGINES), "engine")
    require_known(options.rows, ROWS, "choice of rows")
    require_known(options.rounding, ROUNDING, "rounding")
    _check_loop(options)
    if options.steps < 1 or options.batch < 1 or options.eval_every < 1:
        raise ValueError(
            f"steps {options.steps}, batch {options.batch}, eval_every {options.eval_every}: give 1 or more"
        )
    if options.max_skipped < 1 or options.diverged_window < 1 or options.checkpoint_every < 0:
        raise ValueError(
            f"max_skipped {options.max_skipped}, diverged_window {options.diverged_window}, checkpoint_every "
            f"{options.checkpoint_every}: give 1 or more, and 0 or more for checkpoint_every"
        )
    if not options.diverged_at > 1:
        raise ValueError(f"diverged_at is {options.diverged_at}: give a factor above 1")
    if options.steps > MOST_STEPS:
        raise ValueError(f"steps is {options.steps}: a journal counts to {MOST_STEPS}")
    if options.train is not None and options.batch > options.train and not baselines.known(options.method):
        raise ValueError(f"batch is {options.batch} but there are {options.train} training examples: lower --batch")
    check_steps(options)


def _check_loop(options: TrainOptions) -> None:
    require_known(options.select, SELECT, "selection")
    if options.also_examples < 1:
        raise ValueError(f"also_examples is {options.also_examples}: give 1 or more")
    if options.micro_batch is not None and options.micro_batch < 1:
        raise ValueError(f"micro_batch is {options.micro_batch}: give 1 or more examples, or leave it away")
    if options.clip is not None and not 0 < options.clip < math.inf:
        raise ValueError(f"clip is {options.clip}: give a positive number, or leave it away")
    if options.clip is not None and options.method in FIRST_ORDER:
        raise ValueError(
            f"clip is {options.clip}, but {options.method} has no projected gradients to clip: leave --clip away"
        )
    if options.patience is not None and options.patience < 1:
        raise ValueError(f"patience is {options.patience}: give 1 or more evaluations, or leave it away")
