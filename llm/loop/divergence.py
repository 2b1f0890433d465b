"""Divergence: losses that are not finite, and losses far above that of the start."""

import math
from collections import deque
from dataclasses import dataclass, field

from llm.loop.listener import Listener
from llm.run.log import RunLog
from llm.steppers.taken import Taken
from zobench.run.progress import warn
from zobench.run.records import Row

LEAST_START = 0.1  # nats; on a solved task (0.001) five times the start loss is ordinary noise


@dataclass
class Divergence(Listener):
    """Detects divergence from the losses of the steps.

    `exhausted` is true after `most` skipped steps in a row. `diverged` is true while the mean loss of the last `window`
    steps that were not skipped is above `factor` times the start loss (counted as at least 0.1 nats).

    Args:
        start_loss: mean loss before the first step, in nats.
        most: number of skipped steps in a row after which training stops.
        factor: ratio to the start loss above which the run has diverged.
        window: number of steps in the mean.
        skipped: number of skipped steps so far.
        in_a_row: number of skipped steps at the end.
        losses: losses of the last steps, at most `window`.
    """

    start_loss: float
    most: int
    factor: float
    window: int
    skipped: int = 0
    in_a_row: int = 0
    losses: deque[float] = field(default_factory=deque)

    def on_step(self, taken: Taken) -> None:
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
        """Whether the mean loss is above the limit."""
        return self.mean > self.limit

    @property
    def exhausted(self) -> bool:
        """Whether too many steps in a row were skipped."""
        return self.in_a_row >= self.most

    def status(self, steps: int, *losses: float | None) -> str:
        """Return "diverged" or "ok", from the number of steps and the losses at the end."""
        finite = all(loss is not None and math.isfinite(loss) for loss in losses)
        bad = self.exhausted or self.diverged or not finite
        return "diverged" if bad or self.skipped == steps else "ok"

    def diverging(self, taken: Taken) -> bool:
        """Whether a step was skipped, or its loss is above the limit."""
        return bool(taken.record.skipped) or not taken.loss <= self.limit

    def warning(self, noise: bool) -> str:
        """Return the warning of a divergence; `noise` says that steps were lost in rounding, where a lower rate would
        lose the rest of them.
        """
        way_out = "lower --epsilon, or use a wider --dtype" if noise else "lower --lr or --epsilon"
        return (
            f"the mean loss of the last {self.window} steps is {self.mean:.3g}, above {self.limit:.3g}, "
            f"{self.factor:g} times that of the start: the run has diverged; {way_out}"
        )

    def advice(self) -> str:
        """Return the advice after too many skipped steps."""
        return (
            f"{self.in_a_row} steps in a row were skipped, so training stops; the weights are those of the last good "
            "step: lower --lr or --epsilon, or use a wider --dtype"
        )


class DivergenceReport(Listener):
    """Tells a divergence, once."""

    def __init__(self, divergence: Divergence, log: RunLog, names: Row) -> None:
        self.divergence, self.log, self.names = divergence, log, names

    def on_step(self, taken: Taken) -> None:
        watch = self.divergence
        if watch.diverged and not self.log.record.find(kind="divergence"):
            about = {"mean_loss": watch.mean, "limit": watch.limit, "steps": watch.window}
            self.log.record.append({"kind": "divergence", "step": taken.record.step, **self.names, **about})
            warn(watch.warning(noise=bool(self.log.measured("rounding"))))
