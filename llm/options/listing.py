"""The options of `list`."""

from dataclasses import dataclass

from llm.options.groups import TASK
from zobench.run.options import option


@dataclass(frozen=True)
class ListOptions:
    """List tasks, methods, models and presets; with --task, show how its data are read and split, and some examples."""

    presets: str | None = option(
        None, "show the values of the presets whose names contain this text; all: the values of all presets"
    )
    methods: bool = option(False, "list the methods with their axes, evaluations a step and options")
    task: str | None = option(None, f"show examples of one task: {TASK}")
    data: str | None = option(
        None, "folder of the task's files; by default the shipped files, the folder of the task file, or the hub"
    )
    examples: int = option(2, "number of examples shown for each label")
    seed: int = option(0, "seed of the split")
