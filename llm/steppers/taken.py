"""The outcome of a step that was taken or repeated."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from zobench.run.journal import Record
from zobench.space.motion import Motion

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Taken(NamedTuple):
    """A step: its record, the mean loss of the points that were evaluated, how many projected gradients were clipped,
    the estimator's state for its row, and, if it was watched, the effect of rounding.
    """

    record: Record
    loss: float
    clipped: int = 0
    report: Mapping[str, Any] = NOTHING
    motion: Motion | None = None
