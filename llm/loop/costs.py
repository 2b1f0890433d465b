"""The cost of the steps of a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from llm.cost.memory import PeakMemory
from llm.loop.listener import Listener
from llm.run.context import RunContext
from llm.run.log import RunLog
from llm.steppers.stepper import Stepper
from llm.steppers.taken import Taken
from zobench.run.progress import Speed
from zobench.run.records import Row


class Costs(Listener):
    """Adds up what steps cost, without evaluations: passes, seconds, peak memory, clipped projected gradients."""

    def __init__(self, context: RunContext, stepper: Stepper, log: RunLog) -> None:
        known = [row["peak_mb"] for row in log.record.find(kind="evaluation") if row.get("peak_mb") is not None]
        self._peak = PeakMemory(context.language_model.device, max(known, default=None))
        self._stepper, self._clips = stepper, context.options.clip is not None
        self.seconds, self.clipped, self.speed = 0.0, 0, Speed()

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Measure the memory of a step that is taken in this context."""
        with self._peak:
            yield

    def on_step(self, taken: Taken) -> None:
        self.seconds += taken.record.seconds
        self.clipped += taken.clipped

    @property
    def row(self) -> Row:
        """The costs so far as columns of a row; `peak_mb` is None before the first step."""
        return {
            "forward_passes": self._stepper.forward_passes,
            "backward_passes": self._stepper.backward_passes,
            "seconds": self.seconds,
            "peak_mb": self._peak.mb,
            **({"clipped": self.clipped} if self._clips else {}),
        }
