"""The rows of steps."""

from llm.loop.costs import Costs
from llm.loop.listener import Listener
from llm.run.log import RunLog
from llm.steppers.rounded_step import RoundedStep
from llm.steppers.taken import Taken
from zobench.run.progress import warn
from zobench.run.records import Row


class StepRows(Listener):
    """Reports steps: every one where the run keeps a journal, skipped ones always; and warns once if rounding
    destroys them.
    """

    def __init__(self, log: RunLog, names: Row, costs: Costs) -> None:
        self.log, self.names, self.costs = log, names, costs

    def on_step(self, taken: Taken) -> None:
        record, rounded = taken.record, taken.rounded
        if rounded and rounded.noise:
            self._tell(record.step, rounded)
        row = {"step": record.step, **self.costs.row, "train_loss": taken.loss, "lr": record.lr, **taken.report}
        if record.skipped:
            row = {"kind": "skipped", **row, **self.names, "reason": record.skipped}
            self.log.append_row(row, sync=True)
        elif self.log.journal:
            self.log.append_row({"kind": "step", **row} | (rounded._asdict() if rounded else {}))

    def _tell(self, step: int, rounded: RoundedStep) -> None:
        if self.log.measured("rounding"):
            return
        self.log.keep({"kind": "rounding", "step": step, **self.names, **rounded._asdict()})
        warn(
            f"training is rounding noise: {rounded.moved:.1%} of the weights moved, and the cosine of the intended "
            f"and the realised step is {rounded.cosine:.2f}: raise --lr, or use a wider --dtype"
        )
