"""The measurements of a run: before, between and after the steps."""

import math

from llm.baselines import untouched
from llm.baselines.untouched import NAMES
from llm.loop.costs import Costs
from llm.loop.divergence import Divergence
from llm.loop.listener import Listener
from llm.objective import Encoded, Measured
from llm.objective.minibatch import at_once
from llm.quantised import as_exported
from llm.run.context import RunContext
from llm.run.log import RunLog
from llm.steppers.stepper import Stepper
from llm.steppers.taken import Taken
from zobench.run.records import Row


class Evaluations(Listener):
    """The measurements of a run and their rows; a measurement that the log holds is not repeated.

    `status` describes the last evaluation for the progress bar.
    """

    def __init__(self, context: RunContext, stepper: Stepper, log: RunLog, costs: Costs) -> None:
        self.context, self.stepper, self.log, self.costs = context, stepper, log, costs
        self.status = ""
        self._losses: list[float] = []

    def baselines(self) -> None:
        """Measure chance, zero-shot and calibrated zero-shot before the first step, if there are test examples."""
        data, names = self.context.data, self.context.names
        missing = [name for name in NAMES if not self.log.measured("baseline", name=name)]
        if not missing or not data.test:
            return
        measured = untouched(self.context.objective, data.train, data.dev, data.test).rows()
        for name in missing:
            row = {"name": name, **names, **measured[name], "test_examples": len(data.test)}
            self.log.keep({"kind": "baseline", **row})

    def on_step(self, taken: Taken) -> None:
        # Steps before the last evaluation, which a resumed run replays, are in an earlier row's mean already.
        if taken.record.step >= self.log.evaluated_to and not taken.record.skipped:
            self._losses.append(taken.loss)

    def dev(self) -> Measured:
        """Measure dev, with the weights in the dtype in which steps read them."""
        return self._measure(self.context.data.dev)

    def keep(self, step: int, dev: Measured) -> None:
        """Keep the measurement of dev before a step as a row."""
        train_loss = sum(self._losses) / len(self._losses) if self._losses else None
        self._losses.clear()
        row = {"train_loss": train_loss, "dev_loss": dev.loss, "dev_accuracy": dev.accuracy, **dev.named("dev")}
        self.log.keep({"kind": "evaluation", "step": step, **self.context.names, **self.costs.row, **row})
        self.status = f"dev loss {dev.loss:.3f}, {dev.metric} {dev.accuracy:.1%}"

    def final(self, selected: int, weights: str, best: Row, divergence: Divergence) -> Row:
        """Measure test, if there are test examples, keep the final row and return it; the model has the weights of the
        selected step, whose fingerprint is `weights`.
        """
        context, test, losses = self.context, None, list[float | None]()
        if context.data.test:
            test = self._measure(context.data.test)
            losses.append(test.loss)
        (chosen,), (last,) = (self.log.measured("evaluation", step=at) for at in (selected, self.stepper.steps))
        row: Row = {"selected_step": selected, "best_step": best["step"]}
        row |= {"best_dev_loss": best["dev_loss"], "best_dev_accuracy": best["dev_accuracy"]}
        row |= {name: chosen[name] for name in ("dev_loss", "dev_accuracy")}
        if test:
            row |= {"test_loss": test.loss, "test_accuracy": test.accuracy, "test_examples": len(context.data.test)}
            row |= test.named("test")
        row["status"] = divergence.status(context.options.steps, *losses, last["dev_loss"])
        row |= {"weights": context.language_model.weights, "skipped": divergence.skipped}
        row["fingerprint"] = weights
        about = {"kind": "final", "step": self.stepper.steps, **context.names, **self.costs.row}
        return self.log.keep({**about, **row})

    def _measure(self, examples: list[Encoded]) -> Measured:
        with self.stepper.reading(), as_exported(self.context.language_model.model):
            return self.context.objective.measure(examples, at_once(self.context.options.micro_batch))


class EvaluationSets(Listener):
    """Measures the extra evaluation sets at every evaluation, each by its own task's objective and metric; a row a set
    and a step.

    Rows of the end repeat those of the step whose weights were selected. A set that has its row is not measured again.
    """

    def __init__(self, context: RunContext, stepper: Stepper, log: RunLog) -> None:
        self.context, self.stepper, self.log = context, stepper, log

    def on_evaluated(self, step: int, dev: Measured) -> None:
        for extra in self.context.sets:
            if self.log.measured("also", set=extra.name, step=step, when="evaluation"):
                continue
            with self.stepper.reading(), as_exported(self.context.language_model.model):
                measured = extra.objective.measure(extra.examples, at_once(self.context.options.micro_batch))
            row = {"loss": measured.loss, "accuracy": measured.accuracy, "metric": measured.metric}
            others = {key.replace("-", "_"): value for key, value in measured.others.items()}
            about = {"set": extra.name, "when": "evaluation", "step": step, **self.context.names}
            self.log.keep({"kind": "also", **about, **row, "examples": len(extra.examples), **others})

    def on_selected(self, step: int, weights: str) -> None:
        for extra in self.context.sets:
            (row,) = self.log.measured("also", set=extra.name, step=step, when="evaluation")
            if not self.log.measured("also", set=extra.name, when="end"):
                self.log.keep({**row, "when": "end"})


def summary(method: str, final: Row) -> str:
    """Return one line about the final row of a run."""
    dev, test = (math.nan if final.get(name) is None else final[name] for name in ("dev_accuracy", "test_accuracy"))
    tested = f", test {test:.1%}" if "test_accuracy" in final else ""
    return f"{method}: dev {final.get('metric', 'accuracy')} {dev:.1%}{tested} ({final['status']})"
