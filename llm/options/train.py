"""The options of a training run."""

from dataclasses import dataclass

from llm.options.groups import (
    CallOptions,
    FolderOptions,
    LoopOptions,
    QuantisedOptions,
    RankOptions,
    SeedOptions,
    SizeOptions,
    SplitOptions,
    StepOptions,
)

ROWS = ("all", "touched")
SELECT = ("best", "last")
ROUNDING = ("nearest", "stochastic", "master")
MOST_STEPS = 2**32 - 1


@dataclass(frozen=True)
class TrainOptions(
    CallOptions,
    RankOptions,
    FolderOptions,
    LoopOptions,
    SeedOptions,
    StepOptions,
    SizeOptions,
    SplitOptions,
    QuantisedOptions,
):
    """Fine-tune a causal language model with forward passes only, or with a first-order reference.

    `seconds` in rows are the time of the steps, without evaluations.
    """
