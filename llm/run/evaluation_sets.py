"""Extra evaluation sets: what else is measured of the model on its way, and never selects anything."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from llm import objective, tasks
from llm.model.language_model import LanguageModel
from llm.objective import Encoded, Objective
from llm.options.train import TrainOptions
from llm.tasks.split import for_evaluation


class Named(NamedTuple):
    """An evaluation set as it was asked for, TASK or TASK@FOLDER, with its examples and what is to be told of them."""

    name: str
    task: tasks.Task
    examples: list[tasks.Example]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """An evaluation set, encoded for its own task's objective."""

    name: str
    objective: Objective
    examples: list[Encoded]

    @property
    def notes(self) -> list[str]:
        """What is to be told of the encoded examples."""
        return [f"--also {self.name}: {note}" for note in objective.data_notes(self.objective, {"test": self.examples})]


def read(options: TrainOptions) -> list[Named]:
    """Return the sets of --also, at most --also-examples of each one's test examples, the same for every seed.

    Raises:
        UnknownNameError: no such task; the message names the nearest.
        ValueError: a set is named twice, or its files cannot be used.
    """
    twice = sorted({name for name in options.also if options.also.count(name) > 1})
    if twice:
        raise ValueError(f"--also names {twice[0]!r} more than once")
    sets = []
    for name in options.also:
        task, _, folder = name.partition("@")
        known = tasks.find(task)
        sets.append(Named(name, known, *for_evaluation(known, folder or None, options.also_examples)))
    return sets


def encoded(sets: Sequence[Named], options: TrainOptions, language_model: LanguageModel) -> tuple[EvaluationSet, ...]:
    """Return the sets, encoded for a model.

    Raises:
        ValueError: a set does not suit the model.
    """
    return tuple(_encoded(one, options, language_model) for one in sets)


def _encoded(one: Named, options: TrainOptions, language_model: LanguageModel) -> EvaluationSet:
    make = objective.choose(objective.TASKS_OWN, one.task)
    try:
        chosen = make(language_model, max_tokens=options.max_tokens, bos=options.bos)
        return EvaluationSet(one.name, chosen, chosen.encode(one.examples))
    except ValueError as error:
        raise ValueError(f"--also {one.name}: {error}") from None
