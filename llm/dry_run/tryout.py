"""A few steps and evaluations of a run, which measure its cost."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median

from llm.cost.live import LiveMemory, size_of
from llm.model.compiled import OFF, eager
from llm.objective import Encoded, Objective
from llm.objective.measured import parts
from llm.objective.minibatch import Minibatch, at_once
from llm.objective.touched import touched_rows
from llm.run.context import RunContext
from llm.steppers.stepper import Stepper
from llm.steppers.zeroth_order import ZerothOrderStepper
from zobench import derive

TIMED, SECONDS = 3, 30.0
"""Number of timed steps, and the seconds after which fewer steps are enough."""
SAMPLE = 64
"""Examples of an evaluation's batch: one of middle length is timed, and the longest is measured."""


@dataclass(frozen=True)
class Tryout:
    """What a few steps and evaluations took: bytes, loss evaluations and seconds, of a step and of a token.

    `first` are the evaluations of the first step, a probe of epsilon included, `each` those of the steps after it.
    """

    step_peak: int
    evaluation_peak: int
    gradients: int
    optimiser: int
    first: int
    each: tuple[int, ...]
    backward: int
    seconds: float
    seconds_a_token: float
    skipped: tuple[str, ...]

    @property
    def forward(self) -> int:
        """Evaluations of a step: the mean, to the next whole number, where an estimator takes more for some steps."""
        return round(mean(self.each))

    @classmethod
    def of(cls, context: RunContext, stepper: Stepper) -> "Tryout":
        """Take steps on the longest examples with memory measured, then a few as a run takes them, timed."""
        made = context.objective
        batch = longest(made, context.data.train, context.options.batch)
        reasons, counts, seconds = [], [], []

        def step(rows: Sequence[Encoded]) -> None:
            before = stepper.forward_passes, stepper.backward_passes
            _restricted_to(rows, context, stepper)
            began = time.perf_counter()
            key = derive(*context.keys["key"], stepper.steps)
            record = stepper.step(key, Minibatch(made, list(rows), context.options.micro_batch)).record
            seconds.append(time.perf_counter() - began)
            counts.append((stepper.forward_passes - before[0], stepper.backward_passes - before[1]))
            if record.skipped:
                reasons.append(record.skipped)

        with eager(context.language_model.model), LiveMemory() as memory:
            step(batch)
            step(batch)  # with the optimiser's memory in place
        if context.options.compile != OFF:
            step(context.minibatch(stepper.steps))  # compiles, which is not timed
        untimed = len(seconds)
        gradients = size_of([p.grad for p in context.language_model.model.parameters() if p.grad is not None])
        optimiser = size_of(list(stepper.checkpoint_state()[0].values()))
        ended = time.perf_counter() + SECONDS
        while len(seconds) < untimed + TIMED and (len(seconds) == untimed or time.perf_counter() < ended):
            step(context.minibatch(stepper.steps))
        stepper.settle()
        peak, a_token = _evaluated(context)
        (first, *each), (backward, *_) = zip(*counts, strict=True)
        took = median(seconds[untimed:])
        return cls(memory.peak, peak, gradients, optimiser, first, tuple(each), backward, took, a_token, tuple(reasons))


def _restricted_to(rows: Sequence[Encoded], context: RunContext, stepper: Stepper) -> None:
    """With --rows touched: let directions live on what these examples read, not on what the step's minibatch does."""
    if isinstance(stepper, ZerothOrderStepper) and stepper.touched is not None:
        touched = touched_rows(context.objective, rows)
        stepper.touched = lambda step: touched


def _evaluated(context: RunContext) -> tuple[int, float]:
    """Peak bytes of an evaluation's longest batch, and seconds a token of a batch of middle length."""
    made, rows, most = context.objective, context.data.dev, at_once(context.options.micro_batch)
    with eager(context.language_model.model), LiveMemory() as memory:
        made.measure(longest(made, [*rows, *context.data.test], SAMPLE), most)
    first = max(0, (len(rows) - SAMPLE) // 2)
    sample = longest(made, rows, len(rows))[first : first + SAMPLE]
    if context.options.compile != OFF:
        made.measure(sample, most)  # compiles
    began = time.perf_counter()
    made.measure(sample, most)
    return memory.peak, (time.perf_counter() - began) / tokens(made, sample)


def tokens(made: Objective, rows: Sequence[Encoded]) -> int:
    """Return how many tokens an evaluation of the examples reads, padding included."""
    lengths = [len(row.tokens) + sum(len(c) - 1 for c in made.options(row)) for row in rows]
    batches = parts([len(row.tokens) for row in rows], lengths, SAMPLE)
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)


def evaluated(context: RunContext) -> dict[str, list[tuple[Objective, list[Encoded]]]]:
    """Return what a run measures, and by which objective: before its steps, among them (further sets too), and after.

    A run that stops early, by --patience or at skipped steps, measures less.
    """
    data, options, made = context.data, context.options, context.objective
    times = math.ceil(options.steps / options.eval_every) + 1
    before = [(made, part) for part in (data.train, data.dev, data.test)] if options.baselines else []
    further = [(one.objective, one.examples) for one in context.sets]
    return {"before": before, "dev": [(made, data.dev)] * times, "also": further * times, "after": [(made, data.test)]}


def longest(made: Objective, rows: Sequence[Encoded], count: int) -> list[Encoded]:
    """Return the examples with the most tokens, candidates included."""
    return sorted(rows, key=lambda r: len(r.tokens) + sum(map(len, made.options(r))), reverse=True)[:count]
