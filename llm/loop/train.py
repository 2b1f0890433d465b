"""Fine-tune a language model with a zeroth-order or a first-order method, and keep every measurement."""

from pathlib import Path

from llm.loop.baseline_run import BaselineRun
from llm.loop.crew import Crew
from llm.loop.follower import follow
from llm.loop.loop import Loop
from llm.loop.reports import SINKS, library
from llm.loop.saved_model import complete
from llm.loop.selection import discard
from llm.options.train import TrainOptions
from llm.run.check import check
from llm.run.context import RunContext, prepare, sized, split_of
from llm.run.folder import JOURNAL, MODEL, ROWS
from llm.run.record import open_record
from llm.run.verify import results
from llm.steppers.method import TrainingMethod
from zobench.naming import require_known
from zobench.run.lock import lock
from zobench.run.progress import note
from zobench.run.records import Row, Run


def together(options: TrainOptions) -> Row | None:
    """Do what `train` does with the other processes that torchrun has started, and return the final row on rank 0,
    which keeps the run; None on the others.

    Raises:
        ValueError: as for `train` and `Crew`.
        KeyboardInterrupt: a process got a signal to end.
        RankError: a process was lost, or its weights differ; the run continues with the same command.
    """
    check(options)
    with Crew(options) as crew:
        if crew.leads:
            return train(options, crew=crew)
        follow(options, crew)
    return None


def train(options: TrainOptions, test: bool = True, crew: Crew | None = None) -> Row:
    """Start or resume a run, end it and return its final row. A finished run is neither loaded nor repeated, but its
    files are checked.

    Args:
        options: the options of the run.
        test: whether the selected weights are measured on test.
        crew: the other processes of the run, if there are some, of which this is rank 0.

    Raises:
        ValueError: a library of --report-to is missing, or the folder holds a run that cannot be resumed, any run with
            --no-resume, or a finished run whose files are damaged.
        FolderInUseError: another process writes there.
    """
    for name in options.report_to:
        require_known(name, SINKS, "place to report to")
        library(name)
    finished = _finished(options)
    if finished is not None:
        return finished
    if crew:
        crew.begin()
    context = prepare(options, test)
    Path(options.out).mkdir(parents=True, exist_ok=True)
    held = lock(options.out)
    try:  # once more: another process may have finished the run while this one loaded the model
        finished = _finished(context.options)
        return opened(context, crew).go() if finished is None else finished
    finally:
        held.release()


def opened(context: RunContext, crew: Crew | None = None) -> Loop | BaselineRun:
    """Return the run of a context, with its folder taken."""
    baseline = context.method.baseline
    return BaselineRun(context, baseline) if baseline else Loop(context, crew)


def _finished(options: TrainOptions) -> Row | None:
    """The final row of a finished, undamaged run; None if the run is not finished."""
    if not (Path(options.out) / ROWS).exists():
        return None
    options = options if options.train and options.dev and options.test else sized(options, split_of(options))
    record = open_record(options)
    finals = record.find(kind="final")
    if finals:
        note(f"{options.out} holds a finished run")
        _require_whole(record, options)
        complete(record.folder)
        discard(record.folder)
        return _with_dev(record, finals[-1])
    if record.rows and not options.resume:
        raise ValueError(f"{options.out} holds an unfinished run: give --resume, or another --out")
    return None


def _require_whole(record: Run, options: TrainOptions) -> None:
    """Raise ValueError with the way out if journal, rows or model of a finished run are damaged."""
    method = TrainingMethod.parse(options.method)
    writes = options.journal and method.takes_steps, options.save and method.takes_steps
    if "fingerprint" not in record.find(kind="final")[-1] and method.takes_steps:
        note(f"{record.folder}: an earlier version wrote this run without checksums, so {MODEL}/ was not checked")
    bad = [one for one in results(record.folder, record.rows, *writes) if one.bad]
    if not bad:
        return
    first, more = bad[0], f", and {len(bad) - 1} more" if bad[1:] else ""
    raise ValueError(
        f"{record.folder} holds a finished run, but {first.file} is {first.state} ({first.why}){more}: "
        + _way_out(record.folder, first.file, writes[0] and method.replays and options.rows == "all")
    )


def _way_out(folder: Path, file: str, replays: bool) -> str:
    if file == JOURNAL:
        return "restore it from a copy, or give another --out"
    if file == ROWS:
        return (
            "remove it and give the same command again, which writes it again from the journal, or give another --out"
        )
    if replays:
        return f"`python -m llm journal replay {folder} --out {folder / MODEL}` writes it again, or give another --out"
    return f"remove {folder / ROWS} and give the same command again, which writes it again, or give another --out"


def _with_dev(record: Run, final: Row) -> Row:
    """The final row; those of earlier versions leave the dev loss to the evaluation after the last step."""
    for row in record.find(kind="evaluation", step=final.get("step")):
        return {"dev_loss": row["dev_loss"], "dev_accuracy": row["dev_accuracy"], **final}
    return final
