"""Resuming: a run is brought to where it was, by its checkpoints and its journal."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from llm.loop.selection import Selection
from llm.run import checkpoint
from llm.run.checkpoint import Checkpoint
from llm.run.folder import CHECKPOINTS
from llm.run.log import RunLog
from llm.steppers.stepper import Stepper
from llm.steppers.taken import Taken
from zobench.run.progress import bar, note
from zobench.run.records import within


@dataclass(frozen=True, eq=False)
class Checkpoints:
    """The materialised checkpoints of a run: they bound the replay of one whose losses rebuild its steps, and another
    goes on from its latest. `every` is 0 where none are wanted.
    """

    log: RunLog
    stepper: Stepper
    model: nn.Module
    identity: dict[str, str]
    every: int

    @property
    def _folder(self) -> Path:
        return within(self.log.folder, CHECKPOINTS)

    def save_if_due(self) -> None:
        """Keep the weights every so many steps."""
        if self.every and self.stepper.steps % self.every == 0:
            self.save()

    def save(self) -> None:
        """Keep the weights, if checkpoints are wanted.

        Raises:
            OSError: no space, or the like; the checkpoints before are kept.
        """
        if not (self.log.journal and self.every):
            return
        self.log.sync()
        self.stepper.settle()
        tensors, said = self.stepper.checkpoint_state()
        tensors = checkpoint.weights(self.model) | tensors
        said = said | self.identity | checkpoint.chained(self.log.marks, self.stepper.steps)
        checkpoint.save(self._folder, self.stepper.steps, tensors, said)

    def latest(self, most: int) -> Checkpoint | None:
        """Return the latest checkpoint of at most this step.

        Raises:
            ValueError: a checkpoint is of another run, or does not belong to the journal.
        """
        return checkpoint.latest(self.log.folder / CHECKPOINTS, most, self.identity, self.log.marks)

    def restore(self, kept: Checkpoint) -> None:
        """Put a checkpoint into the model and the stepper."""
        tensors = checkpoint.restore(self.model, kept)
        self.stepper.restore(tensors, kept.metadata, kept.step)


@dataclass(frozen=True, eq=False)
class Resumption:
    """Brings a stepper to where the run was. `hear` is told of every step as if it were taken."""

    log: RunLog
    stepper: Stepper
    checkpoints: Checkpoints
    selection: Selection
    hear: Callable[[Taken], None]

    def first_step(self) -> int:
        """Return the number of the next step, to which the stepper was brought.

        Raises:
            ValueError: a checkpoint is of another run, or the journal of another version of the estimator.
        """
        self.selection.find_missing()
        if not self.log.journal:
            return 0
        first = self._replayed() if self.stepper.replays else self._taken_up()
        self.log.report_before()
        return first

    def _replayed(self) -> int:
        """Repeat the steps after the latest checkpoint from which missing weights can be reached."""
        records, missing = self.log.records, self.selection.missing
        most = len(records) if missing is None else min(len(records), missing)
        first = self._restored(self.checkpoints.latest(most))
        with bar(records[first:], shown=len(records) - first >= 100, desc="replay", unit="step") as shown:
            for record in shown:
                self.log.report_before(record.step)
                self.selection.keep_missing(record.step)
                taken = self.stepper.replay(record)
                self.hear(taken)
                shown.set_postfix_str(f"train loss {taken.loss:.3f}", refresh=False)
        if records:
            note(f"{self.log.folder}: continued at step {len(records)}, of which {first} came from a checkpoint")
        return len(records)

    def _taken_up(self) -> int:
        """Continue from the latest checkpoint: the steps after it are taken again."""
        steps, missing = len(self.log.records), self.selection.missing
        kept = self.checkpoints.latest(steps if missing is None else min(steps, missing))
        if steps and kept is None:
            note(
                f"{self.log.folder}: {self.stepper.identity} takes gradient steps, which recorded losses cannot "
                "rebuild, and there is no checkpoint (--checkpoint-every): the run starts again from step 0"
            )
        self.log.truncate(kept.step if kept else 0)
        return self._restored(kept)

    def _restored(self, kept: Checkpoint | None) -> int:
        """Go on from a checkpoint; return its step. Those before it are heard as if they were taken."""
        if kept is None:
            return 0
        for record in self.log.records[: kept.step]:
            self.log.report_before(record.step)
            self.hear(self.stepper.recall(record))
        self.checkpoints.restore(kept)
        return kept.step
