"""The user's own data: a Python function that returns Examples."""

from collections.abc import Iterable
from itertools import chain
from typing import Any, SupportsIndex

from llm.tasks.example import Example
from llm.tasks.held_out import held_out
from llm.tasks.official import digest
from llm.tasks.record import encodable
from llm.tasks.task import Item, Pools, Sizes, Task
from zobench.spelling import own


def load(name: str) -> Task:
    """Return the task of `package.module:function`; modules are looked for in the current folder too.

    The function takes nothing and returns Examples (a quarter of them is then held out for the test), a pair
    (training, test) of lists of Examples, or a Task.

    Raises:
        ValueError: the module or the function is not there, or it returns something else.
    """
    try:
        function = own(name)
    except ValueError as error:
        raise ValueError(f"task {error}") from None
    made = function()
    return made if isinstance(made, Task) else _task(name, name.partition(":")[2], made)


def _task(name: str, title: str, made: Any) -> Task:
    paired = isinstance(made, tuple) and len(made) == 2 and not isinstance(made[0], Example)
    parts = [_items(name, part) for part in (made if paired else (made,))]
    examples = [item.example for part in parts for item in part]
    written = any(example.answers for example in examples)
    shared = len({example.candidates for example in examples}) == 1 and not written
    pools = Pools(parts[0], parts[1]) if paired else held_out(title, ((item, item.example.prompt) for item in parts[0]))
    return Task(
        title,
        lambda folder: pools,
        examples[0].candidates if shared else None,
        "classification" if shared else "language-model",
        "f1" if written else "accuracy",
        sizes=Sizes(dev_share=1 / 3),
        source=name,
    )


def _items(name: str, examples: Any) -> list[Item]:
    found = list(examples) if isinstance(examples, Iterable) else []
    if not found:
        raise ValueError(f"task {name!r} returned {examples!r}: return Examples, or (training, test), or a Task")
    items = [_example(f"task {name!r}: item {number}", example) for number, example in enumerate(found)]
    return [Item(digest(example), example) for example in items]


def _example(where: str, example: Any) -> Example:
    """An Example with its lists as tuples, after a look at its types."""
    if not isinstance(example, Example) or not example.candidates:
        raise ValueError(
            f"{where} is {example!r}: give Example(prompt, label, candidates), or "
            'Example(prompt, 0, (" " + answer + "\\n",), answers)'
        )
    lists = example[2:5]
    for texts in lists:
        if not isinstance(texts, list | tuple):
            raise ValueError(f"{where} has {texts!r}: give a tuple of texts")
    for text in (example.prompt, *chain(*lists)):
        if not (isinstance(text, str) and encodable(text)):
            raise ValueError(f"{where} has {text!r}: give texts, without lone surrogates")
    if not isinstance(example.label, SupportsIndex):
        raise ValueError(f"{where}: label is {example.label!r}: give the index of the right candidate")
    candidates, answers, choices = map(tuple, lists)
    return Example(example.prompt, int(example.label), candidates, answers, choices, example.turns)
