"""Further evaluation sets: what else is measured of the model on its way, and never selects anything."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from llm import objective, tasks
from llm.model.loading import LanguageModel
from llm.objective import Encoded, Objective
from llm.objective.minibatch import at_once
from llm.tasks.split import for_evaluation

if TYPE_CHECKING:
    from llm.loop.session import Session
    from llm.run.options import TrainOptions


class Named(NamedTuple):
    """An evaluation set as it was asked for, TASK or TASK@FOLDER, with its examples and what is to be told of them."""

    name: str
    task: tasks.Task
    examples: list[tasks.Example]
    notes: tuple[str, ...]


def read(options: "TrainOptions") -> list[Named]:
    """Return the sets of --also, at most --also-examples of each one's test examples, the same for every seed.

    Raises:
        UnknownNameError: no such task; the message names the nearest.
        ValueError: a set is named twice, or its files cannot be used.
    """
    twice = sorted({name for name in options.also if options.also.count(name) > 1})
    if twice:
        raise ValueError(f"--also names {twice[0]!r} more than once")
    found = []
    for name in options.also:
        task, _, folder = name.partition("@")
        known = tasks.find(task)
        found.append(Named(name, known, *for_evaluation(known, folder or None, options.also_examples)))
    return found


class Also:
    """Measures the sets at every evaluation, each by its own task's objective and metric; a row a set and a step.

    Rows of the end repeat those of the step whose weights were selected. Measured ones are not measured again.
    """

    def __init__(self, session: "Session", sets: Sequence[Named], language_model: LanguageModel) -> None:
        self.session = session
        self.sets = [_encoded(one, session.options, language_model) for one in sets]
        self.notes = [
            f"--also {name}: {note}" for name, made, rows in self.sets for note in objective.told(made, {"test": rows})
        ]

    def at(self, step: int) -> None:
        """Measure the sets that have no row at this step."""
        for name, chosen, examples in self.sets:
            if self.session.past.measured("also", set=name, step=step, when="evaluation"):
                continue
            found = chosen.measure(examples, at_once(self.session.options.micro_batch))
            row = {"loss": found.loss, "accuracy": found.accuracy, "metric": found.metric, "examples": len(examples)}
            others = {key.replace("-", "_"): value for key, value in found.others.items()}
            about = {"set": name, "when": "evaluation", "step": step, **self.session.names()}
            self.session.past.keep({"kind": "also", **about, **row, **others})

    def end(self, selected: int) -> None:
        """Say again what the weights that the run ends with measured."""
        for name, *_ in self.sets:
            (row,) = self.session.past.measured("also", set=name, step=selected, when="evaluation")
            if not self.session.past.measured("also", set=name, when="end"):
                self.session.past.keep({**row, "when": "end"})


def _encoded(
    one: Named, options: "TrainOptions", language_model: LanguageModel
) -> tuple[str, Objective, list[Encoded]]:
    make = objective.choose(objective.TASKS_OWN, one.task)
    try:
        chosen = make(language_model, max_tokens=options.max_tokens, bos=options.bos)
        return one.name, chosen, chosen.encode(one.examples)
    except ValueError as error:
        raise ValueError(f"--also {one.name}: {error}") from None
