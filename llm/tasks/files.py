"""Files in, records out: CSV, TSV, JSON lines and JSON, with file and line in every error."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from zobench.naming import require_known


class Record(NamedTuple):
    """The fields of one row, and where they are from, as `file:line`."""

    where: str
    fields: Mapping[str, Any]

    def value(self, name: str) -> Any:
        """Return a field.

        Raises:
            ValueError: there is no such field; the message names the nearest.
        """
        require_known(name, self.fields, f"column in {self.where}:")
        return self.fields[name]

    def text(self, name: str) -> str:
        """Return a field that is a text.

        Raises:
            ValueError: there is no such field, or it is no text.
        """
        value = self.value(name)
        if not isinstance(value, str):
            raise ValueError(f"{self.where}: {name} is {value!r}, not a text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a field that is a list of texts, each once, in order.

        Raises:
            ValueError: there is no such field, or it is no list of texts, or an empty one.
        """
        value = self.value(name)
        if not (isinstance(value, list | tuple) and value and all(isinstance(item, str) for item in value)):
            raise ValueError(f"{self.where}: {name} is {value!r}, not a list of texts")
        return tuple(dict.fromkeys(value))


def read(file: Path, encoding: str = "utf-8") -> list[Record]:
    """Return the rows of a .csv, .tsv or .jsonl file; the first line of the first two names the columns.

    Raises:
        ValueError: the file is missing, empty, malformed or of another kind; the message names file and line.
    """
    readers = {".csv": comma_separated, ".tsv": tab_separated, ".jsonl": json_lines}
    if file.suffix not in readers:
        raise ValueError(f"{file}: a file of rows ends in .csv, .tsv or .jsonl")
    return readers[file.suffix](file, encoding)


def lines(file: Path, encoding: str = "utf-8") -> list[str]:
    r"""Return the lines of a file without their ends; only \n and \r\n end a line.

    Raises:
        ValueError: the file is missing or empty, or a byte is not of the encoding; the message says which line.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    data = file.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise ValueError(f"{file}:1: the file is empty")
    try:
        decoded = [_decoded(line.removesuffix(b"\r"), encoding) for line in data.split(b"\n")]
    except LookupError:
        raise ValueError(f"{file}: encoding {encoding!r} is unknown: give utf-8, latin-1, ...") from None
    for number, line in enumerate(decoded, 1):
        if isinstance(line, UnicodeDecodeError):
            byte = line.object[line.start]
            raise ValueError(
                f"{file}:{number}: byte 0x{byte:02x} at {line.start + 1} is not {encoding}: convert the file, or name "
                'its encoding in the task file (encoding = "latin-1")'
            )
    return [line for line in decoded if isinstance(line, str)]


def _decoded(line: bytes, encoding: str) -> str | UnicodeDecodeError:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        return error


def json_lines(file: Path, encoding: str = "utf-8") -> list[Record]:
    """Return one record for each line that is not blank.

    Raises:
        ValueError: a line is no JSON object, or as `lines` has it.
    """
    records = []
    for number, line in enumerate(lines(file, encoding), 1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{file}:{number}: not JSON ({error.msg} at {error.colno}): mend the line") from None
        if not isinstance(fields, dict):
            raise ValueError(f"{file}:{number}: {line[:60]!r} is not a JSON object: give {{...}} with named fields")
        records.append(Record(f"{file}:{number}", fields))
    return records


def json_document(file: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        ValueError: the file is not JSON, or as `lines` has it.
    """
    try:
        return json.loads("\n".join(lines(file)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}:{error.lineno}: not JSON ({error.msg} at {error.colno})") from None


def comma_separated(file: Path, encoding: str = "utf-8") -> list[Record]:
    """Return the rows of a CSV file; quoted cells may hold commas, quotes and line breaks.

    Raises:
        ValueError: a row has another number of cells than the header, or as `lines` has it.
    """
    return _table(file, csv.reader(_ended(lines(file, encoding)), strict=True))


def tab_separated(file: Path, encoding: str = "utf-8") -> list[Record]:
    """Return the rows of a TSV file as GLUE writes it: a quote is a character like any other.

    Raises:
        ValueError: a row has another number of cells than the header, or as `lines` has it.
    """
    table = csv.reader(_ended(lines(file, encoding)), delimiter="\t", quoting=csv.QUOTE_NONE)
    return _table(file, table)


def _ended(texts: list[str]) -> Iterator[str]:
    return (text + "\n" for text in texts)


def _table(file: Path, reader: Any) -> list[Record]:
    try:
        header = next(reader)
        if len(set(header)) < len(header) or not all(header):
            raise ValueError(f"{file}:1: columns are {header}: give each a name of its own")
        records, line = [], reader.line_num
        for cells in reader:
            line, begun = reader.line_num, line + 1
            if cells and len(cells) != len(header):
                raise ValueError(
                    f"{file}:{begun}: {len(cells)} cells, but the header has {len(header)} ({', '.join(header)}): "
                    "quote a cell that holds the separator"
                )
            if cells:
                records.append(Record(f"{file}:{begun}", dict(zip(header, cells, strict=True))))
    except csv.Error as error:
        raise ValueError(f"{file}:{reader.line_num}: {error}") from None
    if not records:
        raise ValueError(f"{file}:1: there is a header and no row")
    return records
