"""Selection of the final weights: those after the last step, or those of the lowest dev loss, which a file keeps."""

import math
from pathlib import Path

from llm.loop.listener import Listener
from llm.objective import Measured
from llm.run import checkpoint
from llm.run.context import RunContext
from llm.run.folder import BEST, CHECKPOINTS
from llm.run.log import RunLog
from llm.steppers.stepper import Stepper
from zobench.run.progress import warn
from zobench.run.records import Row, within


class Selection(Listener):
    """Keeps the weights of the lowest dev loss so far (the first of equal losses), and decides when patience runs out.

    The file is on disk before the evaluation that selects it is in the journal. So after a kill at any instant the file
    holds the weights that the journal selects, or those that the resumed run is about to select. With --select last no
    file is written. `identity` names the run in the file.
    """

    def __init__(self, context: RunContext, stepper: Stepper, log: RunLog, identity: dict[str, str]) -> None:
        self.model, self.stepper, self.log, self.identity = context.language_model.model, stepper, log, identity
        self.keeps, self.patience = context.options.select == "best", context.options.patience
        self.missing: int | None = None

    @property
    def _file(self) -> Path:
        return within(self.log.folder, BEST)

    def best(self) -> Row | None:
        """Return the evaluation of the lowest dev loss, the first of equal losses; NaN counts as infinite."""
        return min(self.log.measured("evaluation"), key=_loss, default=None)

    def on_evaluated(self, step: int, dev: Measured) -> None:
        """Keep the weights of an evaluation whose row is about to be written, if they are the best so far.

        Raises:
            OSError: no space, or the like; the file still holds the previous weights.
        """
        best = self.best()
        if self.keeps and (best is None or dev.loss < _loss(best)):
            self._keep(step)

    def _keep(self, step: int) -> None:
        self.stepper.settle()  # a pending step belongs to these weights
        checkpoint.write(self._file, step, checkpoint.weights(self.model), self.identity)

    def find_missing(self) -> None:
        """Check whether the file holds the weights that the journal selects; if not, `missing` is their step, which the
        resumed run rebuilds.

        Raises:
            ValueError: the file is of another run.
        """
        best = self.best()
        if not self.keeps or best is None:
            return
        kept = self._read()
        if kept is None or kept.step < best["step"]:  # a later one is of an evaluation whose row a kill prevented
            self.missing = best["step"]

    def keep_missing(self, step: int) -> None:
        """Keep the weights before this step, if they are the missing ones."""
        if step == self.missing:
            self._keep(step)
            self.missing = None

    def stops(self, step: int) -> bool:
        """Return whether `patience` evaluations up to this step followed the best one."""
        losses = [_loss(row) for row in self.log.measured("evaluation") if row["step"] <= step]
        return self.patience is not None and len(losses) - 1 - losses.index(min(losses)) >= self.patience

    def restore(self) -> int:
        """Put the selected weights into the model, which takes no more steps, and return their step.

        Raises:
            ValueError: the file does not hold the selected weights.
        """
        best = self.best()
        self.stepper.settle()
        if not self.keeps or best is None or best["step"] == self.stepper.steps:
            return self.stepper.steps
        kept = self._read()
        if kept is None or kept.step != best["step"]:
            raise ValueError(
                f"{self._file} does not hold the weights of step {best['step']}, which the journal selects: remove "
                "it and give the same command again, which rebuilds them"
            )
        checkpoint.restore(self.model, kept)
        return kept.step

    def on_ended(self, final: Row) -> None:
        discard(self.log.folder)

    def _read(self) -> checkpoint.Checkpoint | None:
        """The checkpoint in the file; None, with a warning, if the file is damaged."""
        if not self._file.exists():
            return None
        try:
            kept = checkpoint.load(self._file)
        except ValueError as error:
            warn(f"{error}: ignored")
            return None
        checkpoint.require_same_run(kept, self.identity)
        return kept


def discard(folder: Path) -> None:
    """Remove the file of a run that has its final row, and files that a killed process left half written."""
    within(folder, BEST).unlink(missing_ok=True)
    for path in (folder, within(folder, CHECKPOINTS)):
        checkpoint.clear(path)


def _loss(row: Row) -> float:
    return math.inf if row["dev_loss"] is None else float(row["dev_loss"])
