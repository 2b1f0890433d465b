"""Faults that a run survives or is stopped by: losses that are not finite, and divergence."""

import math
from collections import deque
from dataclasses import dataclass, field

from llm.steppers.taken import Taken

LEAST_START = 0.1


@dataclass
class Watch:
    """What the steps say about the run's health.

    `exhausted` after `most` steps in a row were skipped. `diverged` while the mean loss of the last `window` steps that
    were not skipped is above `factor` times the start loss (at least 0.1 nats, so that a solved task is no trap).
    """

    start_loss: float
    most: int
    factor: float
    window: int
    skipped: int = 0
    in_a_row: int = 0
    losses: deque[float] = field(default_factory=deque)

    def see(self, taken: Taken) -> None:
        """Take note of a step."""
        skipped = bool(taken.record.skipped)
        self.skipped += skipped
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        if not skipped:
            self.losses.append(taken.loss)
            if len(self.losses) > self.window:
                self.losses.popleft()

    @property
    def limit(self) -> float:
        """The mean loss above which a run has diverged."""
        return self.factor * max(self.start_loss, LEAST_START)

    @property
    def mean(self) -> float:
        """The mean loss over the window; nan before it is full."""
        return sum(self.losses) / self.window if len(self.losses) == self.window else math.nan

    @property
    def diverged(self) -> bool:
        """Whether the loss is far above that of the start."""
        return self.mean > self.limit

    @property
    def exhausted(self) -> bool:
        """Whether too many steps in a row were skipped."""
        return self.in_a_row >= self.most

    def warning(self) -> str:
        """Return what is told of a divergence."""
        return (
            f"the mean loss of the last {self.window} steps is {self.mean:.3g}, above {self.limit:.3g}, "
            f"{self.factor:g} times that of the start: the run has diverged; lower --lr or --epsilon"
        )

    def advice(self) -> str:
        """Return what to do about skipped steps."""
        return (
            f"{self.in_a_row} steps in a row were skipped, so training stops; the weights are those of the last good "
            "step: lower --lr or --epsilon, or use a wider --dtype"
        )
