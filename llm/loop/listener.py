"""The events of a run, and what hears of them."""

from llm.objective import Measured
from llm.steppers.taken import Taken
from zobench.run.records import Row


class Listener:
    """Hears of the events of a run; each method does nothing unless a listener needs the event."""

    def on_step(self, taken: Taken) -> None:
        """A step was taken, or repeated from the journal, and is in the journal."""

    def on_evaluated(self, step: int, dev: Measured) -> None:
        """Dev was measured before a step, and is about to be in the journal: what must be on disk by then is written
        here.
        """

    def on_selected(self, step: int, weights: str) -> None:
        """The model has the weights that the run ends with, those before this step, with this fingerprint; test is
        about to be measured.
        """

    def on_ended(self, final: Row) -> None:
        """The final row is on disk."""

    def on_left(self) -> None:
        """The process leaves the run, which has ended, failed or been interrupted."""
