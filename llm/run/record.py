"""The record of a training run: when a folder may be continued, and what its rows must have for that."""

from dataclasses import asdict
from pathlib import Path

from llm.options.train import TrainOptions
from llm.run.unread import unread
from zobench.run.lock import FolderLock, lock
from zobench.run.options import before
from zobench.run.records import Row, Run

FREE = ("out", "checkpoint_every", "preset", "report_to", "ranks", "rank_timeout", "compare_every")
NUMBERS = {
    "evaluation": ("step", "dev_loss", "dev_accuracy"),
    "step": ("step", "train_loss", "seconds"),
    "skipped": ("step", "train_loss", "seconds"),
    "final": ("step",),
}


def open_record(options: TrainOptions, read_only: bool = False) -> Run:
    """Return the record of a run; where it is kept, when its checkpoints are written, which preset gave its values and
    that it is continued are no part of its identity. Options that the method does not read are left out. A run of
    before there was a choice ended with its last weights. With `read_only` nothing is written.

    Raises:
        ValueError: the folder holds something else, or a row from which the run would go on lacks what it needs of it.
    """
    usual = config_of(TrainOptions(method=options.method, **before(TrainOptions)))
    record = Run(options.out, config_of(options), usual, FREE, read_only)
    _require_rows(record)
    return record


def take(options: TrainOptions) -> tuple[FolderLock, Run]:
    """Make the folder of a run and lock it against other processes; return the lock and the record, which is read
    after it.

    Raises:
        ValueError: as for `open_record`.
        FolderInUseError: another process writes there.
    """
    Path(options.out).mkdir(parents=True, exist_ok=True)
    return lock(options.out), open_record(options)


def config_of(options: TrainOptions) -> Row:
    """Return what config.toml says of a run."""
    untold = dict.fromkeys([*unread(options), "resume", "dry_run"])
    return {"command": "train", **asdict(options), **untold}


def _require_rows(record: Run) -> None:
    for number, row in enumerate(record.rows, 1):
        where = f"{record.folder / 'rows.jsonl'}:{number}"
        if row.get("kind") == "final" and not isinstance(row.get("status"), str):
            raise ValueError(f"{where}: status is {row.get('status')!r}: correct or remove the line")
        for name in NUMBERS.get(str(row.get("kind")), ()):
            value = row.get(name, "nothing")
            good = type(value) is int and value >= 0 if name == "step" else type(value) in (int, float, type(None))
            if not good:
                raise ValueError(f"{where}: {name} is {value!r}: correct or remove the line")
