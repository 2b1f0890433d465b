"""Files in, records out: CSV, TSV, JSON lines and JSON, with file and line in every error."""

from pathlib import Path

from llm.tasks.delimited import table
from llm.tasks.json_rows import json_array, json_lines
from llm.tasks.record import DataRecord, Rows

SEPARATORS = {".csv": ",", ".tsv": "\t"}
READERS = {".jsonl": json_lines, ".json": json_array}
SUFFIXES = (*SEPARATORS, *READERS)
ENDINGS = "ends in .csv, .tsv, .jsonl or .json"
PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".tar")
PANDAS = {".parquet": "parquet", ".feather": "feather", ".arrow": "feather", ".xlsx": "excel", ".xls": "excel"}


def read(
    file: Path, encoding: str = "utf-8", separator: str | None = None, quoting: bool | None = None
) -> list[DataRecord]:
    """Return the rows of a .csv, .tsv, .jsonl or .json file; the first line of the first two names the columns.

    `separator` and `quoting` are of the first two; by default quotes enclose cells of .csv and not of .tsv.

    Raises:
        ValueError: the file is missing, empty, malformed or of another kind; the message names file and line.
    """
    suffix = file.suffix.lower()
    if suffix in SEPARATORS:
        usual = True if suffix == ".csv" else None
        return table(file, separator or SEPARATORS[suffix], usual if quoting is None else quoting, encoding)
    if suffix not in READERS:
        raise ValueError(f"{file}: a file of rows {ENDINGS}{_way_out(suffix)}")
    if separator is not None or quoting is not None:
        raise ValueError(f"{file}: separator and quoting are for .csv and .tsv: leave them out of the task file")
    return READERS[suffix](file, encoding)


def _way_out(suffix: str) -> str:
    if suffix in PACKED:
        return ": unpack it first"
    if suffix in PANDAS:
        return f': convert it, pandas.read_{PANDAS[suffix]}(FILE).to_json("my.jsonl", orient="records", lines=True)'
    return ": rename it, or convert it"


def tab_separated(file: Path) -> Rows:
    """Return the rows of a TSV file as GLUE writes it: a quote is a character like any other.

    Raises:
        ValueError: a row has another number of cells than the header, or as `lines` has it.
    """
    return table(file, "\t", quoting=None)
