"""Delimited rows: CSV, TSV and their kin, the first row of which names the columns."""

import csv
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unicodedata import normalize

from llm.tasks.decoding import NAME_IT, lines
from llm.tasks.record import DataRecord, Rows

ANY_LENGTH = 2**31 - 1
_QUOTED = "if its quotes enclose cells, give quoting = true in the task file"
SEPARATORS = {"\t": "\\t", ";": ";", ",": ",", "|": "|"}


class _Row(NamedTuple):
    line: int
    cells: list[str]


def table(file: Path, separator: str, quoting: bool | None, encoding: str = "utf-8") -> Rows:
    """Return the rows of a file; with `quoting`, quoted cells may hold separators, quotes and line breaks.

    Without it (False, None) a quote is a character like any other; None tells of cells that it seems to enclose.
    Columns without a name and rows of empty cells are passed over, with a note.

    Raises:
        ValueError: the header or a row cannot be read, or as `lines` has it; the message names file and line.
    """
    texts = [f"{line}\n" for line in lines(file, encoding, NAME_IT)]
    quotes: Literal[0, 3] = csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE
    with _cells_of_any_length():
        rows = list(_rows(file, csv.reader(texts, delimiter=separator, quoting=quotes, strict=True)))
    body = [row for row in rows[1:] if any(map(str.strip, row.cells))]
    if not body:
        raise ValueError(f"{file}:1: " + ("there is a header and no row" if rows else "the file is empty"))
    names = [normalize("NFC", name.strip()) for name in rows[0].cells]
    _require_names(f"{file}:{rows[0].line}", names, separator, quoting)
    records = [DataRecord(f"{file}:{row.line}", _fields(file, names, row, quoting)) for row in body]
    empty = len(rows) - 1 - len(body)
    notes = [f"{file}: rows of empty cells are passed over: {empty}"] if empty else []
    return Rows(records, [*notes, *_unnamed(file, names, body), *(_quoted(file, records) if quoting is None else ())])


def _fields(file: Path, names: list[str], row: _Row, quoting: bool | None) -> dict[str, str]:
    if len(row.cells) == len(names):
        return {name: cell for name, cell in zip(names, row.cells, strict=True) if name}
    way_out = "quote a cell that holds the separator"
    if len(row.cells) < len(names):
        way_out = "give the cells that are missing, or quote a cell that holds line breaks"
    if not quoting:
        quoted = any('"' in cell for cell in row.cells)
        way_out = _QUOTED if quoted else "leave separators and line breaks out of cells"
    raise ValueError(
        f"{file}:{row.line}: {len(row.cells)} cells, but the header has {len(names)} ({', '.join(names)}): {way_out}"
    )


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    # The limit is the process's, so it is put back.
    limit = csv.field_size_limit(ANY_LENGTH)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _rows(file: Path, reader: Any) -> Iterator[_Row]:
    """The rows that are no blank line, each with the line in which it begins."""
    begun = 1
    try:
        for cells in reader:
            if len(cells) > 1 or "".join(cells).strip():
                yield _Row(begun, cells)
            begun = reader.line_num + 1
    except csv.Error as error:
        if "unexpected end" in str(error):
            raise ValueError(f"{file}:{begun}: a quoted cell of this row is not closed: add its quote") from None
        raise ValueError(
            f'{file}:{begun}: {error}: within a quoted cell a quote is written twice (""); where quotes '
            "are characters like any other, give quoting = false in the task file"
        ) from None


def _require_names(where: str, names: list[str], separator: str, quoting: bool | None) -> None:
    named = [name for name in names if name]
    if len(set(named)) < len(named) or not named:
        raise ValueError(f"{where}: columns are {names}: give each a name of its own")
    other = next((other for other in SEPARATORS if len(names) == 1 and other in names[0]), None)
    if other:
        raise ValueError(
            f"{where}: the header is one column, {names[0]!r}, where cells are separated by {separator!r}: give "
            f'separator = "{SEPARATORS[other]}" in the task file'
        )
    if quoting is None and any(_is_quoted(name) for name in named):
        raise ValueError(f"{where}: columns are {names}, with quotes: {_QUOTED}")


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _unnamed(file: Path, names: list[str], rows: Iterable[_Row]) -> Iterator[str]:
    columns = [number for number, name in enumerate(names) if not name]
    if not columns:
        return
    filled = [row.line for row in rows if any(row.cells[number].strip() for number in columns)]
    held = f"; rows with text in them: {len(filled)}, first at {file}:{filled[0]}" if filled else ""
    yield f"{file}: columns without a name are passed over: {len(columns)}{held}"


def _quoted(file: Path, records: Iterable[DataRecord]) -> Iterator[str]:
    found = [record.where for record in records for cell in record.fields.values() if _is_quoted(cell)]
    if found:
        yield f"{file}: cells keep the quotes around them: {len(found)}, first at {found[0]}: {_QUOTED}"
