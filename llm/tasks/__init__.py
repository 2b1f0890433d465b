"""Tasks: questions, a prompt, and the candidates among which the model chooses or the answer that it writes."""

from llm.tasks.example import Example
from llm.tasks.split import split
from llm.tasks.table import TASKS, find
from llm.tasks.task import METRICS, OBJECTIVES, Item, Pools, Sizes, Split, Task, columns

__all__ = [
    "METRICS",
    "OBJECTIVES",
    "TASKS",
    "Example",
    "Item",
    "Pools",
    "Sizes",
    "Split",
    "Task",
    "columns",
    "find",
    "split",
]
