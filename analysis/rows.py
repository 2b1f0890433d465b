"""Run folders -> one tidy frame for each kind of row, with the run's name and provenance beside each row."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kinds import IDENTITY, KINDS, UNREPORTED
from zobench.figures import frame as frames
from zobench.figures.frame import ReadError as ReadError
from zobench.run.reading import file_bytes, json_object, toml_table

# With pyarrow beside it pandas keeps strings in Arrow, where adding them to objects and indexing by them differ.
pd.set_option("mode.string_storage", "python")

Row = dict[str, Any]
ROWS = "rows.jsonl"
LISTS = frozenset(
    {
        *("nodes", "probabilities", "values", "rates", "dev_losses", "rounds", "r", "moments"),
        *("seconds", "limit_seconds", "curve"),
    }
)
"""Columns that are no numbers and may hold several."""


@dataclass(frozen=True)
class RunRows:
    """One run folder: what it was asked to do, where it ran, and its rows as written."""

    name: str
    folder: Path
    config: Row
    environment: Row
    rows: tuple[Row, ...]

    @property
    def provenance(self) -> str:
        """The origin of the results: "live", or the value in config.toml."""
        return str(self.config.get("provenance", "live"))

    @property
    def identity(self) -> Row:
        """Model, task, method, estimator and seed of a training run, from the first row that names them."""
        whole = (row for row in self.rows if all(name in row for name in IDENTITY))
        return {name: value for name, value in next(whole, {}).items() if name in IDENTITY}


@dataclass(frozen=True)
class Results:
    """All runs, one frame for each known kind of row, and what the reader should be warned of."""

    runs: tuple[RunRows, ...]
    frames: dict[str, pd.DataFrame]
    warnings: tuple[str, ...] = field(default=())

    def of(self, kind: str) -> pd.DataFrame:
        """The frame of one kind, empty (but with its columns) if no run has such rows."""
        return self.frames[kind]

    def config_of(self, run: str) -> Row:
        """The configuration of the run of that name."""
        return next(one.config for one in self.runs if one.name == run)


def read(paths: Iterable[Path], kind: str | None = None) -> Results:
    """Read run folders, or parents of run folders; also files of rows: CSV with a line of column names, or JSON lines.

    `kind` is that of rows in files without a column `kind`.

    Raises:
        ReadError: nothing to read, a broken line other than the last, or a row without a needed column.
    """
    warnings: list[str] = []
    paths = list(paths)
    files = [path for path in paths if path.is_file() and path.name != ROWS]
    folders = find_runs(path.parent if path.is_file() else path for path in paths if path not in files)
    runs = (
        *(_read_run(name, folder, warnings) for name, folder in _named(folders)),
        *(RunRows(file.stem, file.parent, {}, {}, tuple(_rows_of(file, kind, warnings))) for file in files),
    )
    warnings += _unknown_kinds(runs)
    return Results(runs, {kind: _frame(kind, runs) for kind in KINDS}, tuple(warnings))


def tidy(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """`zobench.figures.frame.tidy` of one of KINDS."""
    return frames.tidy(frame, kind, KINDS[kind])


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Every folder at or below `paths` that holds a rows.jsonl, each once, in the order given.

    Raises:
        ReadError: a path does not exist, or there is no rows.jsonl at or below it.
    """
    folders: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise ReadError(f"no folder {str(path)!r}: give a run folder (it holds rows.jsonl) or a parent of some")
        below = sorted(file.parent for file in path.rglob(ROWS))
        if not below:
            raise ReadError(
                f"no rows.jsonl in {str(path)!r} or below it: run folders are written by "
                f"`{KINDS['bias'].command}` or `{KINDS['final'].command}`"
            )
        for folder in below:
            folders.setdefault(folder.resolve(), folder)
    return list(folders.values())


def _named(folders: list[Path]) -> Iterator[tuple[str, Path]]:
    last = [folder.resolve().name for folder in folders]
    for name, folder in zip(last, folders, strict=True):
        resolved = folder.resolve()
        yield (name if last.count(name) == 1 else f"{resolved.parent.name}/{name}"), folder


def _read_run(name: str, folder: Path, warnings: list[str]) -> RunRows:
    config = _read_optional(folder / "config.toml", toml_table, warnings)
    environment = _read_optional(folder / "environment.json", json_object, warnings)
    rows = tuple(_read_rows(folder / ROWS, warnings))
    if not rows:
        warnings.append(f"{folder / ROWS} has no rows: nothing was measured yet, or the file was emptied")
    return RunRows(name, folder, config, environment, rows)


def _rows_of(file: Path, kind: str | None, warnings: list[str]) -> Iterator[Row]:
    """The rows of a file of another program."""
    if file.suffix.lower() in (".jsonl", ".json"):
        yield from _read_rows(file, warnings, kind)
        return
    if file.suffix.lower() != ".csv":
        raise ReadError(f"{str(file)!r}: give a run folder, a .csv file with column names, or a .jsonl file")
    try:
        lines = csv.DictReader(io.StringIO(file_bytes(file).decode("utf-8-sig"), newline=""))
        for line in lines:
            row = {column: _cell(value) for column, value in line.items() if column and value not in ("", None)}
            yield _checked(_of_kind(row, kind), file, lines.line_num)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ReadError(f"{file}: no CSV of rows ({error})") from error


def _cell(value: str | Any) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def _read_optional(file: Path, parse: Callable[[bytes, str], Row], warnings: list[str]) -> Row:
    if not file.exists():
        warnings.append(f"{file} is missing: the report leaves out its contents")
        return {}
    try:
        return parse(file_bytes(file), str(file))
    except ValueError as error:
        raise ReadError(f"{error}; restore it, or move that run folder elsewhere") from error


def _read_rows(file: Path, warnings: list[str], kind: str | None = None) -> Iterator[Row]:
    try:
        *lines, torn = file_bytes(file).split(b"\n")
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _checked(_of_kind(json_object(line, f"{file}:{number}"), kind), file, number)
        if torn.strip():
            yield from _last(torn, file, len(lines) + 1, warnings, kind)
    except ReadError:
        raise
    except ValueError as error:
        raise ReadError(str(error)) from error


def _of_kind(row: Row, kind: str | None) -> Row:
    return row if kind is None else {"kind": kind, **row}


def _last(line: bytes, file: Path, number: int, warnings: list[str], kind: str | None = None) -> Iterator[Row]:
    """The row of a last line that does not end."""
    try:
        row = json_object(line, f"{file}:{number}")
    except ValueError:
        warnings.append(f"{file}:{number}: dropped the last line, which is torn (a crash while writing?)")
        return
    yield _checked(_of_kind(row, kind), file, number)


def _checked(row: Row, file: Path, number: int) -> Row:
    kind = KINDS.get(row["kind"]) if isinstance(row.get("kind"), str) else None
    if not isinstance(row.get("kind"), str):
        raise ReadError(f"{file}:{number}: kind is {row.get('kind')!r}, not a word: correct or remove the line")
    missing = [column for column in kind.required if column not in row] if kind else []
    if missing:
        lacking = ", ".join(map(repr, missing))
        raise ReadError(f"{file}:{number}: a row of kind {row['kind']!r} lacks {lacking}: correct or remove the line")
    for column in {*IDENTITY, *(kind.text if kind else ())} - LISTS:
        if isinstance(row.get(column), list | dict):
            raise ReadError(f"{file}:{number}: {column} is {row[column]!r:.60}, not a word: correct the line")
    return row


def _unknown_kinds(runs: Iterable[RunRows]) -> Iterator[str]:
    for run in runs:
        unknown = [row["kind"] for row in run.rows if row["kind"] not in KINDS and row["kind"] not in UNREPORTED]
        for kind in sorted(set(map(str, unknown))):
            yield f"{run.folder}: ignored {unknown.count(kind)} rows of kind {kind!r}, unknown to this report"


def _frame(kind: str, runs: Iterable[RunRows]) -> pd.DataFrame:
    rows = [
        {"provenance": run.provenance, **identity, **row, "run": run.name}
        for run, identity in ((run, run.identity if kind == "step" else {}) for run in runs)
        for row in run.rows
        if row["kind"] == kind
    ]
    columns = ["run", "provenance", *KINDS[kind].columns]
    return tidy(pd.DataFrame(rows, dtype=object).reindex(columns=columns), kind)
