"""Fine-tune a language model with a zeroth-order or a first-order method, and keep every measurement."""

from pathlib import Path

from llm.loop.baseline_run import BaselineRun
from llm.loop.loop import Loop
from llm.loop.selection import discard
from llm.options.train import TrainOptions
from llm.run.context import RunContext, prepare, sized, split_of
from llm.run.record import open_record, require_rows
from zobench.run.progress import note
from zobench.run.records import Row, Run


def train(options: TrainOptions, test: bool = True) -> Row:
    """Run, or continue, to the final row and return it; a finished run is neither loaded nor repeated. Without `test`
    nothing is measured on test.

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
    return opened(prepare(options, test)).go()


def opened(context: RunContext) -> Loop | BaselineRun:
    """Return the run of a context, with its folder taken."""
    baseline = context.method.baseline
    return BaselineRun(context, baseline) if baseline else Loop(context)


def _with_dev(record: Run, final: Row) -> Row:
    """The final row; those of earlier versions leave the dev loss to the evaluation after the last step."""
    for row in record.find(kind="evaluation", step=final.get("step")):
        return {"dev_loss": row["dev_loss"], "dev_accuracy": row["dev_accuracy"], **final}
    return final
