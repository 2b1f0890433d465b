"""Verbalisers: which word stands for which label."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

from llm.tasks.example import Example
from llm.tasks.record import DataRecord
from zobench.naming import require_known

WHOLE = re.compile(r"^([+-]?\d+)\.0+$")


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

    def index(self, record: DataRecord) -> int:
        """Return the index of the right candidate; labels are names, numbers, true or false.

        Raises:
            ValueError: the label is none of the task's; the message names file and line.
        """
        names, name = {name.lower(): name for name in self.words}, canonical(record.shown(self.column))
        if name.isdecimal() and int(name) < len(self.numbers):
            name = self.numbers[int(name)]
        if name.lower() not in names:
            known = ", ".join(self.words)
            raise ValueError(
                f"{record.where}: {self.column} {record.value(self.column)!r} is none of {known} (or their numbers, "
                "from 0): a file without labels cannot be used"
            )
        return list(self.words).index(names[name.lower()])


def classified(prompt: Callable[[DataRecord], str], verbaliser: Verbaliser) -> Callable[[DataRecord], Example]:
    """Return the example of a record, from its prompt and its label."""

    def example(record: DataRecord) -> Example:
        return Example(prompt(record), verbaliser.index(record), verbaliser.candidates)

    return example


def lookup(record: DataRecord, column: str, labels: Sequence[str]) -> int:
    """Return the place of a record's label among the labels of a task file, compared as text in its canonical form.

    Raises:
        UnknownNameError: the label is not there; the message names file and line, and the nearest.
    """
    name = record.shown(column)
    if name not in labels:
        alike = [label for label in labels if canonical(label) == canonical(name)]
        name = alike[0] if len(alike) == 1 else name
    require_known(name, labels, f"label in {record.where}:")
    return list(labels).index(name)


def canonical(label: str) -> str:
    """Return a label with composed letters, one space for white space of any kind, and 1 for 1.0."""
    return WHOLE.sub(r"\1", " ".join(normalize("NFC", label).split()))


def require_continuations(file: Path, labels: Mapping[str, Any]) -> None:
    """Check the table of labels of a task file.

    Raises:
        ValueError: a continuation is no text, or there are fewer than two.
    """
    for name, continuation in labels.items():
        if isinstance(continuation, dict):
            whole = f"{name}.{next(iter(continuation), '')}"
            raise ValueError(f'{file}: TOML reads label {whole} as a table {name}: quote the key, "{whole}" = "..."')
        if not (isinstance(continuation, str) and continuation.strip()):
            raise ValueError(f'{file}: label {name} is {continuation!r}: give its continuation, {name} = " word"')
    if len(labels) < 2:
        raise ValueError(f'{file}: labels are {labels}: give two or more lines of the form value = " continuation"')
