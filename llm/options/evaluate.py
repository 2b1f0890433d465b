"""The options of `evaluate`."""

from dataclasses import dataclass

from llm.options.groups import ModelOptions, SeedOptions, SplitOptions
from zobench.run.options import option


@dataclass(frozen=True)
class EvaluateOptions(SeedOptions, SplitOptions, ModelOptions):
    """Measure loss and accuracy of a model on dev and test, with plain and with calibrated scores.

    To evaluate the tuned weights of a run, give --model <run>/model.
    """

    out: str | None = option(None, "folder for the result; by default nothing is written")
