"""A row of a data file, its values checked where they are used, and what is to be told of its file."""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from unicodedata import normalize

from zobench.naming import require_known


class DataRecord(NamedTuple):
    """The fields of one row, and where they are from, as `file:line`."""

    where: str
    fields: Mapping[str, Any]

    def value(self, name: str) -> Any:
        """Return a field; names are compared as Unicode composes them.

        Raises:
            ValueError: there is no such field (the message names the nearest), or its value is NaN, infinite or half
                a character.
        """
        name = normalize("NFC", name)
        require_known(name, self.fields, f"column in {self.where}:")
        value = self.fields[name]
        for item in value if isinstance(value, list | tuple) else (value,):
            if fault := _fault(item):
                raise ValueError(f"{self.where}: {name} is {item!r:.200}, {fault}: correct the row, or leave it out")
        return value

    def shown(self, name: str) -> str:
        """Return a field as text without white space at its ends; numbers, true and false as JSON writes them.

        Raises:
            ValueError: as `value` has it, or the field is a list, an object or null.
        """
        value = self.value(name)
        if not isinstance(value, str | int | float):
            raise ValueError(f"{self.where}: {name} is {value!r:.200}: give a text or a number")
        return value.strip() if isinstance(value, str) else json.dumps(value)

    def text(self, name: str) -> str:
        """Return a field that is a text.

        Raises:
            ValueError: there is no such field, or it is no text.
        """
        value = self.value(name)
        if not isinstance(value, str):
            raise ValueError(f"{self.where}: {name} is {value!r:.200}, not a text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a field that is a list of texts, each once, in order.

        Raises:
            ValueError: there is no such field, or it is no list of texts, or an empty one.
        """
        value = self.value(name)
        if not (isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value)):
            raise ValueError(f"{self.where}: {name} is {value!r:.200}, not a list of texts")
        return tuple(dict.fromkeys(value))


class Rows(list[DataRecord]):
    """The rows of a file, with notes on what was passed over."""

    def __init__(self, records: Iterable[DataRecord], notes: Iterable[str] = ()):
        super().__init__(records)
        self.notes = tuple(notes)


def notes_of(records: list[DataRecord]) -> tuple[str, ...]:
    """Return the notes that came with the rows, none for a plain list."""
    return records.notes if isinstance(records, Rows) else ()


def encodable(text: str) -> bool:
    """Return whether a text has no lone surrogate, which no encoding and no tokenizer takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fault(value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "which stands for a missing value and is no text" if math.isnan(value) else "which is no text"
    if isinstance(value, str) and not encodable(value):
        return "which has a lone surrogate, half of a character (an emoji that was cut in two)"
    return None
