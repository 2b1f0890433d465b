"""Run folders -> one tidy frame for each kind of row, with the run's name and provenance beside each row."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.kinds import IDENTITY, KINDS, UNREPORTED
from zobench.run.reading import file_bytes, json_object, toml_table

Row = dict[str, Any]
LISTS = frozenset({"nodes", "probabilities", "values", "rates", "dev_losses", "rounds", "r", "moments"}) | {
    "seconds",
    "limit_seconds",
}
"""Columns that are no numbers and may hold several."""


class ReadError(ValueError):
    """A result folder cannot be read; the message names the file and the way out."""


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


def read(paths: Iterable[Path]) -> Results:
    """Read run folders, or parents of run folders.

    Raises:
        ReadError: nothing to read, a broken line other than the last, or a row without a needed column.
    """
    warnings: list[str] = []
    folders = find_runs(paths)
    runs = tuple(_read_run(name, folder, warnings) for name, folder in _named(folders))
    warnings += _unknown_kinds(runs)
    return Results(runs, {kind: _frame(kind, runs) for kind in KINDS}, tuple(warnings))


def find_runs(paths: Iterable[Path]) -> list[Path]:
    """Every folder at or below `paths` that holds a rows.jsonl, each once, in the order given.

    Raises:
        ReadError: a path does not exist, or there is no rows.jsonl at or below it.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if not path.is_dir():
            raise ReadError(f"no folder {str(path)!r}: give a run folder (it holds rows.jsonl) or a parent of some")
        below = sorted(file.parent for file in path.rglob("rows.jsonl"))
        if not below:
            raise ReadError(
                f"no rows.jsonl in {str(path)!r} or below it: run folders are written by "
                f"`{KINDS['bias'].command}` or `{KINDS['final'].command}`"
            )
        for folder in below:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _named(folders: list[Path]) -> Iterator[tuple[str, Path]]:
    last = [folder.resolve().name for folder in folders]
    for name, folder in zip(last, folders, strict=True):
        resolved = folder.resolve()
        yield (name if last.count(name) == 1 else f"{resolved.parent.name}/{name}"), folder


def _read_run(name: str, folder: Path, warnings: list[str]) -> RunRows:
    config = _read_optional(folder / "config.toml", toml_table, warnings)
    environment = _read_optional(folder / "environment.json", json_object, warnings)
    rows = tuple(_read_rows(folder / "rows.jsonl", warnings))
    if not rows:
        warnings.append(f"{folder / 'rows.jsonl'} has no rows: nothing was measured yet, or the file was emptied")
    return RunRows(name, folder, config, environment, rows)


def _read_optional(file: Path, parse: Callable[[bytes, str], Row], warnings: list[str]) -> Row:
    if not file.exists():
        warnings.append(f"{file} is missing: the report cannot say what it would have said")
        return {}
    try:
        return parse(file_bytes(file), str(file))
    except ValueError as error:
        raise ReadError(f"{error}; restore it, or move that run folder elsewhere") from error


def _read_rows(file: Path, warnings: list[str]) -> Iterator[Row]:
    try:
        *lines, torn = file_bytes(file).split(b"\n")
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _checked(json_object(line, f"{file}:{number}"), file, number)
        if torn.strip():
            yield from _last(torn, file, len(lines) + 1, warnings)
    except ReadError:
        raise
    except ValueError as error:
        raise ReadError(str(error)) from error


def _last(line: bytes, file: Path, number: int, warnings: list[str]) -> Iterator[Row]:
    """The row of a last line that does not end."""
    try:
        row = json_object(line, f"{file}:{number}")
    except ValueError:
        warnings.append(f"{file}:{number}: dropped the last line, which is torn (a crash while writing?)")
        return
    yield _checked(row, file, number)


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
    known = KINDS[kind]
    frame = pd.DataFrame(rows, dtype=object)
    frame = frame.reindex(columns=["run", "provenance", *known.columns]).astype(object)
    for column in known.numbers:
        frame[column] = _numbers(frame, kind, column)
    return frame


def _numbers(frame: pd.DataFrame, kind: str, column: str) -> pd.Series:
    numbers = pd.to_numeric(frame[column], errors="coerce").astype(float)
    wrong = frame[numbers.isna() & frame[column].map(lambda value: isinstance(value, str | list | dict))]
    if len(wrong):
        where, value = wrong["run"].iloc[0], wrong[column].iloc[0]
        raise ReadError(f"run {where!r}: a row of kind {kind!r} has {column!r} = {value!r}, not a number")
    return numbers
