"""Fine-tune a language model with a zeroth-order or a first-order method, and keep every measurement."""

from pathlib import Path

from llm.training import dry_run
from llm.training.options import TrainOptions
from llm.training.record import open_record, require_rows
from llm.training.selection import discard
from llm.training.session import Session, sized, split_of
from zobench import exit_status
from zobench.progress import note
from zobench.records import Row, Run


def run(options: TrainOptions) -> int:
    """Fine-tune a causal language model with forward passes only (or a first-order reference) on a labelled task."""
    if options.dry_run:
        dry_run.run(options)
        return exit_status.OK
    final = train(options)
    note(f"rows: {Path(options.out) / 'rows.jsonl'}")
    return exit_status.OK if final["status"] == "ok" else exit_status.DIVERGED


def train(options: TrainOptions, session_of: type[Session] = Session) -> Row:
    """Run, or continue, to the final row and return it; a finished run is neither loaded nor repeated.

    Raises:
        ValueError: the folder holds something that cannot be continued, or must not with --no-resume.
        FolderInUseError: another process writes there.
    """
    if (Path(options.out) / "rows.jsonl").exists():
        options = options if options.train and options.dev and options.test else sized(options, split_of(options))
        record = open_record(options)
        require_rows(record)
        finished = record.find(kind="final")
        if finished:
            note(f"{options.out} holds a finished run")
            discard(record.folder)
            return _with_dev(record, finished[-1])
        if record.rows and not options.resume:
            raise ValueError(f"{options.out} holds an unfinished run: give --resume, or another --out")
    session = session_of(options)
    session.go()
    return session.record.find(kind="final")[-1]


def _with_dev(record: Run, final: Row) -> Row:
    """The final row; those of earlier versions leave the dev loss to the evaluation after the last step."""
    for row in record.find(kind="evaluation", step=final.get("step")):
        return {"dev_loss": row["dev_loss"], "dev_accuracy": row["dev_accuracy"], **final}
    return final
