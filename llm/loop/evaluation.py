"""What is measured of the model on its way: before, between and after the steps."""

import math
from typing import TYPE_CHECKING

from llm.baselines import untouched
from llm.baselines.untouched import NAMES
from llm.objective import Encoded, Measured
from llm.objective.minibatch import at_once
from zobench.run.records import Row

if TYPE_CHECKING:
    from llm.loop.session import Session


class Evaluations:
    """The evaluations of a session and their rows; those that its record holds are not repeated.

    `said` is a word about the last one for the progress bar, `last` the step of the last that is recorded.
    """

    def __init__(self, session: "Session") -> None:
        self.session, self.record, self.said = session, session.record, ""
        self._losses: list[float] = []
        self.look()

    def look(self) -> None:
        """Find out which evaluation is the last."""
        self.last = max((row["step"] for row in self.session.past.measured("evaluation")), default=0)

    def baselines(self) -> None:
        """Measure what the model can do before the first step."""
        missing = [name for name in NAMES if not self.session.past.measured("baseline", name=name)]
        if not missing:
            return
        data = self.session.data
        found = untouched(self.session.objective, data.train, data.dev, data.test).rows()
        for name in missing:
            row = {"name": name, **self.session.names(), **found[name], "test_examples": len(data.test)}
            self.session.past.keep({"kind": "baseline", **row})

    def see(self, step: int, loss: float) -> None:
        """Take note of the training loss of a step."""
        if step >= self.last:
            self._losses.append(loss)

    def at(self, step: int) -> None:
        """Measure dev, unless that was done at this step."""
        if self.session.past.measured("evaluation", step=step):
            self.session.selection.again(step)
            return
        with self.session.trainer.reading():
            self.session.also.at(step)
            found = self._measure(self.session.data.dev)
        train_loss = sum(self._losses) / len(self._losses) if self._losses else None
        self._losses.clear()
        row = {"train_loss": train_loss, "dev_loss": found.loss, "dev_accuracy": found.accuracy, **found.named("dev")}
        self.session.past.sync()
        self.session.selection.see(step, found.loss)
        about = {**self.session.names(), **self.session.cost()}
        self.session.past.keep({"kind": "evaluation", "step": step, **about, **row})
        self.said = f"dev loss {found.loss:.3f} {found.metric} {found.accuracy:.1%}"

    def final(self, selected: int) -> Row:
        """Measure test, keep the final row and return it; the model has the weights of the selected step."""
        session = self.session
        with session.trainer.reading():
            test, best = self._measure(session.data.test), session.selection.best()
        (chosen,), (last,) = (
            session.past.measured("evaluation", step=step) for step in (selected, session.trainer.steps)
        )
        assert best is not None  # the last step was evaluated
        row: Row = {"selected_step": selected, "best_step": best["step"]}
        row |= {name: chosen[name] for name in ("dev_loss", "dev_accuracy")}
        row |= {"test_loss": test.loss, "test_accuracy": test.accuracy, "test_examples": len(session.data.test)}
        row |= {**test.named("test"), "status": session.status(test.loss, last["dev_loss"])}
        row |= {"weights": session.language_model.weights, "skipped": session.watch.skipped}
        about = {**session.names(), **session.cost()}
        session.also.end(selected)
        session.past.keep({"kind": "final", "step": session.trainer.steps, **about, **row})
        dev = math.nan if row["dev_accuracy"] is None else row["dev_accuracy"]
        print(f"{session.options.method}: dev {test.metric} {dev:.1%}, test {test.accuracy:.1%} ({row['status']})")
        return row

    def _measure(self, examples: list[Encoded]) -> Measured:
        return self.session.objective.measure(examples, at_once(self.session.options.micro_batch))
