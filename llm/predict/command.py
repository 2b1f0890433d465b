"""The command `predict`: a file of rows in, the same rows with answers out."""

import csv
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from llm.options.evaluate import PredictOptions
from llm.predict.predictor import Prediction, Predictor
from llm.tasks.record import DataRecord
from zobench.run.progress import bar, note, warn

SEPARATORS = {".csv": ",", ".tsv": "\t"}
ANSWER, PROBABILITY = "prediction", "probability"


def run(options: PredictOptions) -> None:
    """Run the command: PredictOptions says what it does."""
    if options.input is None:
        raise ValueError("no rows: give --input FILE, a .csv, .tsv, .jsonl or .json with the columns of the prompt")
    suffix = _suffix(options.out)
    predictor = Predictor.load(
        options.model, options.task, options.device, options.dtype, options.batch, options.max_tokens, options.bos,
        options.trust_remote_code, options.engine, options.out,
    )  # fmt: skip
    records = predictor.task.read(Path(options.input))
    _require_free(records, [ANSWER, PROBABILITY, *map(_share, predictor.labels)])
    with _opened(options.out) as file, bar(total=len(records), desc="predict", unit="row") as shown:
        written = _rows(records, predictor)
        for row in _table(written, file, suffix, predictor.labels):
            shown.update()
            shown.set_postfix_str(f"{row[ANSWER]}", refresh=False)
    if predictor.cut:
        warn(f"{predictor.cut} of {len(records)} prompts were cut from the left: --max-tokens says how much is read")
    if options.out:
        note(f"{len(records)} rows: {options.out}")
        note(f"next: python -m llm export {options.model} --to FOLDER writes the model for other programs")


def _suffix(out: str | None) -> str:
    """The format that is written; refused before the model is loaded."""
    suffix = Path(out).suffix.lower() if out else ".csv"
    if suffix not in (*SEPARATORS, ".jsonl"):
        raise ValueError(f"--out {out}: end it in .csv, .tsv or .jsonl")
    if out and Path(out).exists():
        raise ValueError(f"--out {out} exists: remove it, or give another name")
    return suffix


def _require_free(records: Sequence[DataRecord], names: Sequence[str]) -> None:
    taken = [name for name in names if records and name in records[0].fields]
    if taken:
        raise ValueError(f"{records[0].where}: there is a column {taken[0]!r}, which the answers have: rename it")


def _share(label: str) -> str:
    return f"p({label})"


def _rows(records: Sequence[DataRecord], predictor: Predictor) -> Iterator[dict[str, Any]]:
    for record, found in zip(records, predictor(records), strict=True):
        yield {**record.fields, **_answer(found)}


def _answer(found: Prediction) -> dict[str, Any]:
    shares = {_share(name): value for name, value in found.probabilities.items()}
    return {ANSWER: found.answer, **({PROBABILITY: found.probability} if shares else {}), **shares}


def _table(
    rows: Iterator[dict[str, Any]], file: TextIO, suffix: str, labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Write the rows as they come, and yield each that is written."""
    writer: Any = None
    for row in rows:
        if suffix == ".jsonl":
            file.write(json.dumps(_plain(row), ensure_ascii=False) + "\n")
        else:
            if writer is None:
                names = dict.fromkeys([*row, *map(_share, labels)])
                how: Any = {"delimiter": SEPARATORS[suffix], "extrasaction": "ignore", "lineterminator": "\n"}
                writer = csv.DictWriter(file, list(names), **how)
                writer.writeheader()
            writer.writerow(_cells(row))
        file.flush()
        yield row


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a row; lists and objects as JSON."""
    return {k: json.dumps(v, ensure_ascii=False) if isinstance(v, list | dict) else v for k, v in row.items()}


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


@contextmanager
def _opened(out: str | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    with Path(out).open("x", encoding="utf-8", newline="") as file:
        yield file
