"""The two labelled sets of short texts shipped with the project, and the pool of them held out for tests."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

DATA = Path(__file__).parents[1] / "data"
COLUMNS = {"spam": ("text", "label"), "sentences": ("text", "label", "source")}
CLASSES = {
    "spam": ("normal", "spam"), "sentences": ("negative", "positive"), "genre": ("message", "review")
}  # fmt: skip
TEST_SHARE = 0.25


class CorpusError(ValueError):
    """A corpus that is unknown, missing or malformed; the message names the file and the line."""


@dataclass(frozen=True)
class Row:
    """One text, its label (0 or 1, see `CLASSES`) and where it is from: "sms", "imdb", "yelp" or "amazon"."""

    text: str
    label: int
    group: str


def read(name: str, folder: Path = DATA) -> list[Row]:
    """The rows of a shipped set, in the order of its file.

    Args:
        name: "spam" (SMS Spam Collection) or "sentences" (UCI Sentiment Labelled Sentences).
        folder: where `<name>.csv` lies.

    Returns:
        every row, held out or not.

    Raises:
        CorpusError: unknown name, missing file, wrong columns, an empty text, or a label other than 0 and 1.
    """
    if name not in COLUMNS:
        raise CorpusError(f"no corpus is called {name!r}; there are {', '.join(sorted(COLUMNS))}")
    path = folder / f"{name}.csv"
    if not path.is_file():
        raise CorpusError(f"{path}: no such file")
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            return list(_rows(reader, path, COLUMNS[name]))
        except (csv.Error, UnicodeDecodeError) as error:
            raise CorpusError(f"{path}:{reader.line_num + 1}: {error}") from error


def _rows(reader: Iterator[list[str]], path: Path, columns: tuple[str, ...]) -> Iterator[Row]:
    header = next(reader, [])
    if tuple(header) != columns:
        raise CorpusError(f"{path}:1: columns are {','.join(header)!r}, expected {','.join(columns)!r}")
    for cells in reader:
        where = f"{path}:{reader.line_num}"  # type: ignore[attr-defined]
        if len(cells) != len(columns):
            raise CorpusError(f"{where}: {len(cells)} cells, expected {len(columns)} ({','.join(columns)})")
        text, label, group = (*cells, "sms")[:3]
        if label not in ("0", "1"):
            raise CorpusError(f"{where}: label {label!r} is neither 0 nor 1")
        if not text.strip():
            raise CorpusError(f"{where}: empty text")
        yield Row(text, int(label), group)


def normalised(text: str) -> str:
    """The text without its accidents: lower case, each run of digits one "0", other non-letters one space.

    Messages made from one template (another number, another price) have the same normal form.

    Returns:
        the normal form, "" for a text without letters and digits.
    """
    digits = re.sub(r"\d+", "0", text.lower())
    return re.sub(r"[\W_]+", " ", digits).strip()


def held_out(text: str) -> bool:
    """Whether a text belongs to the test pool, about a quarter of all, fixed by a hash of `normalised(text)`.

    Near-duplicates fall on the same side. Neither pretraining nor fine-tuning may see a text in the pool.

    Returns:
        the same answer for ever, whatever else is in the data.
    """
    digest = blake2b(normalised(text).encode(), digest_size=8).digest()
    return int.from_bytes(digest) < TEST_SHARE * 2**64


def pretraining_texts(folder: Path = DATA) -> list[str]:
    """Read all that a model may be trained on, without labels.

    Returns:
        every text outside the test pool, in the order of the files.
    """
    return [row.text for name in COLUMNS for row in read(name, folder) if not held_out(row.text)]


def held_out_texts(folder: Path = DATA) -> list[str]:
    """Read all that no model may have been trained on, without labels.

    Returns:
        every text of the test pool, in the order of the files.
    """
    return [row.text for name in COLUMNS for row in read(name, folder) if held_out(row.text)]
