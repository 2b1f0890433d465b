"""The tasks that have a name, and how any task is found."""

from pathlib import Path

from llm.tasks import function, taskfile
from llm.tasks.countdown import COUNTDOWN
from llm.tasks.files import SUFFIXES
from llm.tasks.published import PUBLISHED
from llm.tasks.shipped import SHIPPED
from llm.tasks.task import Task
from zobench.naming import require_known

TASKS = {task.name: task for task in (*SHIPPED, COUNTDOWN, *(official.task for official in PUBLISHED.values()))}


def find(name: str) -> Task:
    """Return a task by name, from a task file (`my.toml`), or from a Python function (`package.module:function`).

    Raises:
        UnknownNameError: no such task, or no such key of a task file; the message names the nearest.
        ValueError: the file or the function cannot be used; the message says why.
    """
    suffix = Path(name).suffix.lower()
    if suffix == ".toml":
        return taskfile.load(Path(name))
    if suffix in SUFFIXES:
        raise ValueError(f"task {name!r} is a data file: name it in a task file with its prompt and labels")
    if ":" in name:
        return function.load(name)
    require_known(name, TASKS, "task")
    return TASKS[name]
