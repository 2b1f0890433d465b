"""A published set: its files, its place on the hub, and its example of a record."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from llm.tasks.example import Example
from llm.tasks.hub import HubSet
from llm.tasks.record import DataRecord, notes_of
from llm.tasks.task import USUAL, Item, Pools, Sizes, Task


@dataclass(frozen=True, eq=False)
class Official:
    """A published set: names of its training and test file (with other names they go by), and how they are read.

    `group` is the column that rows of one text share: where a test pool has to be held out, they stay together.
    `keyed_by` is the column whose text is a question's key, otherwise prompt and candidates are, with the values of
    `told_apart_by`. `label` is the column of the label. `sample` is a record made up for `llm list`.
    """

    name: str
    training: tuple[str, ...]
    test: tuple[str, ...]
    read: Callable[[Path], list[DataRecord]]
    hub: HubSet
    group: str
    example: Callable[[DataRecord], Example]
    sample: Mapping[str, Any]
    candidates: tuple[str, ...] | None = None
    objective: str = "classification"
    metric: str = "accuracy"
    sizes: Sizes = USUAL
    keyed_by: str | None = None
    told_apart_by: tuple[str, ...] = ()
    label: str = "label"

    @property
    def content_free(self) -> Example | None:
        """The prompt with every text left empty, if candidates are common; its label says nothing."""
        if self.candidates is None:
            return None
        empty = {k: "" if isinstance(v, str) and k != self.label else v for k, v in self.sample.items()}
        return self.item(DataRecord("sample", empty)).example

    @property
    def task(self) -> Task:
        """The task over the official files or the hub."""
        return Task(
            self.name,
            self.pools,
            self.candidates,
            self.objective,
            self.metric,
            sizes=self.sizes,
            source=f"{self.training[0]}, {self.test[0]}, or hub {self.hub}",
            sample=self.example(DataRecord("sample", self.sample)),
            content_free=self.content_free,
            ask=self.ask,
            read=self.read,
        )

    def ask(self, record: DataRecord) -> Example:
        """Return the example of a record without an answer: that of the sample stands in its place."""
        sample, fields = self.sample, dict(record.fields)
        fields |= {name: sample[name] for name in (self.label, "answer", "answers") if name in sample}
        if "entities" in fields:  # of ReCoRD, whose answers are some of them
            fields["answers"] = fields["entities"]
        return self.item(DataRecord(record.where, fields)).example._replace(label=0)

    def pools(self, folder: str | None) -> Pools:
        """Return the pools from a folder of the official files, or from the hub.

        Raises:
            ValueError: a file or `datasets` is missing, or a row is malformed; the message names file and line.
        """
        if folder is None:
            return self._pools(*self.hub.load(self.name, f"{self.training[0]} and {self.test[0]}"))
        names = self.training, self.test
        return self._pools(*(self.read(self._found(Path(folder), choice)) for choice in names))

    def _pools(self, training: list[DataRecord], test: list[DataRecord]) -> Pools:
        parts = [[record for record in part if has_answer(record)] for part in (training, test)]
        lost = [len(part) - len(kept) for part, kept in zip((training, test), parts, strict=True)]
        note = f"{self.name}: {lost[0]} training and {lost[1]} test questions without an answer are left out"
        notes = (*notes_of(training), *notes_of(test), *((note,) if any(lost) else ()))
        return Pools(self.items(parts[0]), self.items(parts[1]), notes)

    def items(self, records: Iterable[DataRecord]) -> list[Item]:
        """Return the examples of records, each under its key."""
        return [self.item(record) for record in records]

    def item(self, record: DataRecord) -> Item:
        """Return the example of a record under its key; nothing stands before the first letter of a prompt."""
        made = self.example(record)
        made = made._replace(prompt=made.prompt.lstrip())
        if self.keyed_by:
            return Item(record.text(self.keyed_by).strip(), made)
        return Item(digest(made, *(str(record.fields.get(name)) for name in self.told_apart_by)), made)

    def _found(self, folder: Path, names: tuple[str, ...]) -> Path:
        """The first of the names that is a file in the folder."""
        for name in names:
            if (folder / name).is_file():
                return folder / name
        others = f" (nor {', '.join(names[1:])})" if names[1:] else ""
        raise ValueError(
            f"{folder / names[0]}: no such file{others}; files of other names, or one file for training and test, go "
            f'into a task file: task = "{self.name}", train = "...", test = "..." (docs/tasks.md)'
        )


def has_answer(record: DataRecord) -> bool:
    """Whether a record has an answer, or is of a set that has labels instead."""
    return bool(record.fields.get("answers", True))


def digest(example: Example, *more: str) -> str:
    """Return a short text that identifies prompt and candidates, and what more there is."""
    return blake2b("\x1f".join((example.prompt, *example.candidates, *more)).encode(), digest_size=16).hexdigest()
