"""Which weights a run ends with: those after its last step, or those of its lowest dev loss, which one file keeps."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from llm.run import checkpoint
from zobench.run.progress import warn
from zobench.run.records import Row, within

if TYPE_CHECKING:
    from llm.loop.session import Session

SELECT = ("best", "last")
FILE = "best.safetensors"


class Selection:
    """Keeps the weights of the lowest dev loss so far (the first of equal ones), and says when to stop looking.

    The file is on disk before the evaluation that selects it is in the journal, so that a kill at any instant leaves
    what the journal names, or what the continued run is about to name. Nothing is written with --select last.
    """

    def __init__(self, session: "Session") -> None:
        self.session, self.record, self.options = session, session.record, session.options
        self.keeps = self.options.select == "best"
        self.missing: int | None = None

    @property
    def _file(self) -> Path:
        return within(self.record.folder, FILE)

    def best(self) -> Row | None:
        """Return the evaluation of the lowest dev loss, the first of equal ones; a loss that is no number is none."""
        return min(self.session.past.measured("evaluation"), key=_loss, default=None)

    def see(self, step: int, loss: float) -> None:
        """Keep the weights of an evaluation whose row is about to be written, if they are the best so far.

        Raises:
            OSError: no space, or the like; what was kept before is there.
        """
        best = self.best()
        if self.keeps and (best is None or loss < _loss(best)):
            self._keep(step)

    def _keep(self, step: int) -> None:
        self.session.trainer.settle()
        kept = checkpoint.weights(self.session.language_model.model)
        checkpoint.write(self._file, step, kept, self.session.past.identity)

    def look(self) -> None:
        """Find out whether the file holds the weights that the journal selects; where not, `missing` is their step, and
        the continued run goes through it again.

        Raises:
            ValueError: the file is of another run.
        """
        best = self.best()
        if not self.keeps or best is None:
            return
        kept = self._read()
        if kept is None or kept.step < best["step"]:  # a later one is of an evaluation whose row a kill prevented
            self.missing = best["step"]

    def again(self, step: int) -> None:
        """Keep the weights before this step, if they are those that are missing."""
        if step == self.missing:
            self._keep(step)
            self.missing = None

    def stops(self, step: int) -> bool:
        """Return whether the evaluations up to this step ran out of patience: so many since the best one."""
        losses = [_loss(row) for row in self.session.past.measured("evaluation") if row["step"] <= step]
        patience = self.options.patience
        return patience is not None and len(losses) - 1 - losses.index(min(losses)) >= patience

    def take(self) -> int:
        """Put the selected weights into the model, which takes no more steps, and return their step.

        Raises:
            ValueError: the file does not hold them any more.
        """
        trainer, best = self.session.trainer, self.best()
        trainer.settle()
        if not self.keeps or best is None or best["step"] == trainer.steps:
            return trainer.steps
        kept = self._read()
        if kept is None or kept.step != best["step"]:
            raise ValueError(
                f"{self._file} does not hold the weights of step {best['step']}, which the journal selects: remove "
                "it and give the same command again, which rebuilds them"
            )
        checkpoint.restore(self.session.language_model.model, kept)
        return kept.step

    def _read(self) -> checkpoint.Checkpoint | None:
        """What the file holds; damage is told, and is nothing."""
        if not self._file.exists():
            return None
        try:
            kept = checkpoint.load(self._file)
        except ValueError as error:
            warn(f"{error}: passed over")
            return None
        checkpoint.require_same_run(kept, self.session.past.identity)
        return kept


def discard(folder: Path) -> None:
    """Remove the file of a run that has its final row."""
    for name in (FILE, checkpoint.aside(Path(FILE)).name):
        within(folder, name).unlink(missing_ok=True)


def _loss(row: Row) -> float:
    return math.inf if row["dev_loss"] is None else float(row["dev_loss"])
