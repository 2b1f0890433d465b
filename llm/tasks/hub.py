"""Data sets of the Hugging Face hub, through the optional package `datasets`."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llm.tasks.record import DataRecord

CONVERTED = "refs/convert/parquet"


def unchanged(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the row."""
    return row


@dataclass(frozen=True)
class HubSet:
    """A data set of the hub, its subset, and the function that gives its rows the columns of our records."""

    path: str
    subset: str | None = None
    columns: Callable[[Mapping[str, Any]], Mapping[str, Any]] = unchanged
    test: str = "validation"

    def __str__(self) -> str:
        return f"{self.path} {self.subset or ''}".strip()

    def load(self, task: str, files: str) -> tuple[list[DataRecord], list[DataRecord]]:
        """Return the training and the test rows, with class labels by name where the hub has names for them.

        Raises:
            ValueError: `datasets` cannot be imported, or the hub does not give the set; the message says what to do.
        """
        try:
            import datasets
        except ImportError as error:
            raise ValueError(
                f"task {task} needs --data FOLDER ({files}), or the library of the hub: pip install -e "
                f'".[hub]" ({error})'
            ) from None
        if not sys.stderr.isatty():  # no log holds a carriage return
            datasets.disable_progress_bars()
        try:
            sets = self._sets(datasets.load_dataset)
            return self._records(sets["train"], "train"), self._records(sets[self.test], self.test)
        except Exception as error:  # the hub, its cache and its formats have errors of their own
            raise ValueError(
                f"task {task}: {self} could not be loaded from the hub ({type(error).__name__}: {error}); "
                f"give --data FOLDER ({files})"
            ) from error

    def _sets(self, load_dataset: Callable[..., Any]) -> Any:
        """Sets that are a loading script are refused by datasets 4: the hub's own conversion of them is not."""
        named = (self.path,) if self.subset is None else (self.path, self.subset)
        try:
            return load_dataset(*named)
        except RuntimeError:
            return load_dataset(*named, revision=CONVERTED)

    def _records(self, rows: Any, part: str) -> list[DataRecord]:
        names = {column: getattr(kind, "names", None) for column, kind in dict(rows.features).items()}
        records = []
        for number, row in enumerate(rows, 1):
            fields = {column: _named(value, names.get(column)) for column, value in row.items()}
            records.append(DataRecord(f"hub {self} {part}:{number}", self.columns(fields)))
        return records


def _named(value: Any, names: list[str] | None) -> Any:
    return names[value] if names and isinstance(value, int) and 0 <= value < len(names) else value
