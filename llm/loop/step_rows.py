"""The rows of steps."""

from llm.loop.costs import Costs
from llm.loop.divergence import Divergence
from llm.loop.listener import Listener
from llm.run.log import RunLog
from llm.steppers.taken import Taken
from zobench.run.progress import warn
from zobench.run.records import Row
from zobench.space.motion import Motion


class StepRows(Listener):
    """Reports steps: every one where the run keeps a journal, skipped ones always; and warns once if rounding
    destroys them.
    """

    def __init__(self, log: RunLog, names: Row, costs: Costs, divergence: Divergence) -> None:
        self.log, self.names, self.costs, self.divergence = log, names, costs, divergence

    def on_step(self, taken: Taken) -> None:
        record, motion = taken.record, taken.motion
        if motion and motion.is_noise:
            self._tell(taken, motion)
        row = {"step": record.step, **self.costs.row, "train_loss": taken.loss, "lr": record.lr, **taken.report}
        if record.skipped:
            row = {"kind": "skipped", **row, **self.names, "reason": record.skipped}
            self.log.append_row(row, sync=True)
        elif self.log.journal:
            self.log.append_row({"kind": "step", **row} | (motion.row if motion else {}))

    def _tell(self, taken: Taken, motion: Motion) -> None:
        if self.log.measured("rounding"):
            return
        self.log.keep({"kind": "rounding", "step": taken.record.step, **self.names, **motion.row})
        # A run that diverges is told to lower its rate, and no run is told both.
        raised = "" if self.divergence.diverging(taken) else "raise --lr, or "
        warn(
            f"training is rounding noise: {motion.moved:.1%} of the weights moved, and the cosine of the intended "
            f"and the realised step is {motion.cosine:.2f}: {raised}use a wider --dtype"
        )
