"""What is said of a step that was taken or repeated."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from llm.steppers.rounded_step import RoundedStep
from zobench.run.journal import Record

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Taken(NamedTuple):
    """A step: its record, the mean loss of the points that were evaluated, how many projected gradients were clipped,
    what its row says of the estimator's state, and, where it was watched, what rounding left of it.
    """

    record: Record
    loss: float
    clipped: int = 0
    report: Mapping[str, Any] = NOTHING
    rounded: RoundedStep | None = None
