"""Verbalisers: which word stands for which label."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from llm.tasks.example import Example
from llm.tasks.files import Record
from zobench.naming import require_known


@dataclass(frozen=True)
class Verbaliser:
    """Candidates in order, each with the label it stands for; `numbers` are the labels that 0, 1, ... stand for."""

    words: Mapping[str, str]
    numbers: Sequence[str]
    column: str = "label"

    @property
    def candidates(self) -> tuple[str, ...]:
        """The continuations, in the order of `words`."""
        return tuple(self.words.values())

    def index(self, record: Record) -> int:
        """Return the index of the right candidate; labels are names, numbers, true or false.

        Raises:
            ValueError: the label is none of the task's; the message names file and line.
        """
        value = record.value(self.column)
        names = {name.lower(): name for name in self.words}
        name = str(value).strip()
        if not isinstance(value, bool) and name.isdecimal() and int(name) < len(self.numbers):
            name = self.numbers[int(name)]
        if name.lower() not in names:
            known = ", ".join(self.words)
            raise ValueError(
                f"{record.where}: {self.column} {value!r} is none of {known} (or their numbers, from 0): a file "
                "without labels cannot be used"
            )
        return list(self.words).index(names[name.lower()])


def classified(prompt: Callable[[Record], str], verbaliser: Verbaliser) -> Callable[[Record], Example]:
    """Return the example of a record, from its prompt and its label."""

    def example(record: Record) -> Example:
        return Example(prompt(record), verbaliser.index(record), verbaliser.candidates)

    return example


def lookup(record: Record, column: str, labels: Sequence[str]) -> int:
    """Return the place of a record's label among the labels of a task file, compared as text.

    Raises:
        UnknownNameError: the label is not there; the message names file and line, and the nearest.
    """
    value = record.value(column)
    name = str(value).lower() if isinstance(value, bool) else str(value).strip()
    require_known(name, labels, f"label in {record.where}:")
    return list(labels).index(name)
