"""Texts that are legal and rarely meant: empty, "nan", or decoded wrongly; counted, with the first row."""

import re
from collections.abc import Callable, Sequence
from unicodedata import normalize

from llm.tasks.record import DataRecord

MISSING = {"nan", "na", "n/a", "#n/a", "<na>", "nat", "null", "none"}
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
CONTROL = re.compile(r"[\x80-\x9f]")


def without_empty(
    records: Sequence[DataRecord], prompt: Sequence[str], others: Sequence[str] = ()
) -> tuple[list[DataRecord], list[str]]:
    """Return the rows that fill a column of the prompt, and notes on doubtful texts of all columns named.

    Raises:
        ValueError: no row is left.
    """
    empty = [record for record in records if _is_empty(record, prompt)]
    kept = [record for record in records if not _is_empty(record, prompt)]
    columns, notes = " and ".join(prompt), []
    if empty and not kept:
        raise ValueError(f"{empty[0].where}: {columns} is empty, here and in every row")
    if empty:
        notes = [f"rows left out: {len(empty)} of {len(records)}, {columns} is empty, first at {empty[0].where}"]
    return kept, [*notes, *(note for name in dict.fromkeys((*prompt, *others)) for note in _doubts(kept, name))]


def _is_empty(record: DataRecord, columns: Sequence[str]) -> bool:
    return bool(columns) and all(_text(record, column) == "" for column in columns)


def _doubts(records: Sequence[DataRecord], column: str) -> list[str]:
    texts = [(_text(record, column), record) for record in records]
    notes = []
    for doubtful, sentence in KINDS:
        found = [(text, record.where) for text, record in texts if text is not None and doubtful(text)]
        if found:
            text, where = found[0]
            notes.append(f"{column} {sentence} in {len(found)} of {len(records)} rows: {text[:40]!r} at {where}")
    return notes


def _text(record: DataRecord, column: str) -> str | None:
    """The text of a column without white space and invisible letters at its ends, None for another value."""
    value = record.fields.get(normalize("NFC", column))
    return value.strip().strip(INVISIBLE).strip() if isinstance(value, str) else None


def _misread(text: str) -> bool:
    """Whether a text is UTF-8 that was decoded as Latin-1 or cp1252."""
    return not text.isascii() and any(_is_utf8(text, encoding) for encoding in ("latin-1", "cp1252"))


def _is_utf8(text: str, encoding: str) -> bool:
    try:
        text.encode(encoding).decode()
    except UnicodeError:
        return False
    return True


KINDS: tuple[tuple[Callable[[str], bool], str], ...] = (
    (lambda text: not text, "is empty"),
    (lambda text: text.lower() in MISSING, "is a word for a missing value but taken as text"),
    (_misread, "looks like UTF-8 decoded as another encoding (is the one of the task file right?),"),
    (
        lambda text: CONTROL.search(text) is not None and not _misread(text),
        'has control characters, which are quotes and dashes in cp1252 (give encoding = "cp1252"),',
    ),
    (lambda text: "\ufffd" in text, "has U+FFFD, which replaces a lost character,"),
)
