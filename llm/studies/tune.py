"""Hyper-parameters searched on development data: each trial is a run, and a row."""

import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from llm.dry_run import dry_run
from llm.loop.train import train
from llm.options.studies import SAMPLERS, TuneOptions
from llm.options.train import TrainOptions
from llm.run.check import check
from llm.run.folder import CHECKPOINTS
from llm.run.record import config_of
from llm.steppers.method import TrainingMethod
from llm.studies.overall import Overall
from llm.studies.queue import Queue, require_workers
from llm.studies.search import Axis, Tried, Value, axis, library, propose
from zobench.naming import require_known
from zobench.run import toml
from zobench.run.lock import FolderInUseError
from zobench.run.options import code_arguments, from_groups
from zobench.run.progress import note
from zobench.run.records import Row, Run, rows_now, rows_with, within, write_atomically
from zobench.spelling import spelled

SEARCHED = ("lr", "epsilon", "batch")
FREE = ("out", "trials", "checkpoint_every", "preset", "report_to", "workers", "backend", "cluster")
BEST = "best.toml"


def run(options: TuneOptions) -> None:
    """Run the command: TuneOptions says what it does."""
    axes = _checked(options)
    if options.dry_run:
        print(f"one of {options.trials} trials:")
        first = {name: one.ends[0] for name, one in axes.items()}
        folder = str(Path(options.out) / "trials/0000")
        dry_run.run(_trial_options(options, first, out=folder, dry_run=True), test=False)
        return
    record = Run.joined(options.out, _config(options), _config(TuneOptions()), FREE)
    try:
        _search(options, axes, record)
    finally:  # an interrupted search tells what it found
        print(table(record.rows, tuple(axes)))
    best = _best(record)
    if best is None:
        raise ValueError(f"all {options.trials} trials diverged or failed: search smaller values")
    _keep_best(options, record)
    if options.select == "best" and best["best_step"] == 0:
        print("\nno trial has a lower dev loss than the untrained model: search other values, or give more --steps")
    print(f"\ntrial {best['number']} has the lowest dev loss; to train with its values:")
    code = code_arguments(TrainOptions, asdict(_train_options(options, {name: best[name] for name in axes})))
    print(f"  python -m llm train --config {Path(options.out) / BEST} --out {options.out}-best {code}".rstrip())


@dataclass(frozen=True)
class Trial:
    """A trial of a search, kept as a row of it."""

    number: int
    options: TuneOptions
    axes: dict[str, Axis]

    @property
    def name(self) -> str:
        """The name by which it is claimed."""
        return f"trials/{self.number:04d}"

    @property
    def study(self) -> Path:
        """The folder of the search."""
        return Path(self.options.out)

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return within(self.study, self.name)

    def done(self) -> bool:
        """Return whether the search has the row of the trial."""
        return bool(rows_with(rows_now(self.study), kind="trial", number=self.number))

    def make(self) -> None:
        """Make the run of the trial, or let it go on."""
        record = Run.reopened(self.study)
        row = {"kind": "trial", "number": self.number, **_tried(self, record)}
        with record.shared():
            record.append(row)
            _keep_best(self.options, record)


def _search(options: TuneOptions, axes: dict[str, Axis], record: Run) -> None:
    """Run the trials that have no row yet, those that are proposed together at once."""
    missing = [n for n in range(options.trials) if not record.find(kind="trial", number=n)]
    trials = [Trial(number, options, axes) for number in missing]
    queue = Queue.of(options, whole=Overall({trial.name: 1.0 for trial in trials}))

    def told(trial: Trial) -> None:
        record.refresh()
        row = record.find(kind="trial", number=trial.number)[-1]
        loss = "no dev loss" if row["dev_loss"] is None else f"dev loss {row['dev_loss']:.4f}"
        note(f"trial {trial.number}: {_values(row, axes)}: {loss} ({row['status']})")

    for _, together in groupby(trials, lambda trial: _first(options, trial.number)):
        queue.finish(together, told)


def _first(options: TuneOptions, number: int) -> int:
    """The first of the trials that are proposed together with this one: a random proposal depends on no other."""
    together = options.trials if options.sampler == "random" else options.together
    return number - number % together


def _values(row: Mapping[str, Any], axes: Iterable[str]) -> str:
    return ", ".join(f"{name} {row[name]:.3g}" for name in axes)


def _checked(options: TuneOptions) -> dict[str, Axis]:
    """The axes; refuses, before the first trial, options with which a later trial would fail."""
    if options.trials < 1:
        raise ValueError(f"trials is {options.trials}: give 1 or more")
    if options.together < 1:
        raise ValueError(f"together is {options.together}: give 1 or more")
    require_known(options.sampler, SAMPLERS, "sampler")
    require_workers(options)
    library()
    searched = {name: axis(name, getattr(options, name)) for name in SEARCHED}
    axes = {name: one for name, one in searched.items() if one is not None}
    if not axes:
        raise ValueError("nothing to search: give --lr, --epsilon or --batch as low:high or as choices a,b,c")
    batches = axes.get("batch")
    if batches and not all(isinstance(value, int) for value in batches.choices or (0.5,)):
        raise ValueError(f"batch is {options.batch!r}: give whole numbers as choices a,b,c")
    method = TrainingMethod.parse(options.method)
    if not method.takes_steps:
        raise ValueError(f"{options.method} takes no step, so there is nothing to tune")
    if "epsilon" in axes and (method.needs_gradient or "epsilon" in spelled(options.method).options):
        raise ValueError(f"epsilon is {options.epsilon!r}, but {options.method} does not read it: search --lr alone")
    for end in range(max(len(one.ends) for one in axes.values())):
        check(_trial_options(options, {name: one.ends[min(end, len(one.ends) - 1)] for name, one in axes.items()}))
    return axes


def _config(options: TuneOptions) -> Row:
    return {"command": "tune", **asdict(options), "resume": None, "dry_run": None}


def _train_options(options: TuneOptions, values: dict[str, Value], **more: Any) -> TrainOptions:
    """The options of a training run with these values."""
    given = {name: getattr(options, name) for name in SEARCHED}
    return from_groups(TrainOptions, options, **{**given, **values, **more})


def _trial_options(options: TuneOptions, values: dict[str, Value], **more: Any) -> TrainOptions:
    """The options of a trial: dev alone is measured, no weights are kept, and its row does the selection."""
    plain = {"baselines": False, "save": False, "select": "last", "resume": True, "dry_run": False, "preset": None}
    return _train_options(options, values, **{**plain, "also": (), **more})


def _tried(trial: Trial, record: Run) -> Row:
    """The row of a trial, which is run or continued."""
    options, axes, folder = trial.options, trial.axes, trial.folder
    before = [row for row in _trials(record) if row["number"] < _first(options, trial.number)]
    tried = [Tried({name: row[name] for name in axes}, _loss(row)) for row in before]
    values = propose(axes, tried, options.sampler, options.seed, trial.number)
    try:
        final = train(_trial_options(options, values, out=str(folder)), test=False)
    except (OSError, FolderInUseError):
        raise
    except Exception as error:
        if not any(row["status"] == "ok" for row in rows_with(rows_now(trial.study), kind="trial")):
            raise  # no trial has succeeded yet: the fault is more likely in the options that all trials share
        return {**values, "dev_loss": None, "status": "failed", "reason": f"{type(error).__name__}: {error}"}
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    chosen = "best_" if options.select == "best" else ""
    row: Row = {**values, "dev_loss": final[f"{chosen}dev_loss"], "dev_accuracy": final[f"{chosen}dev_accuracy"]}
    costs = ("forward_passes", "backward_passes", "seconds")
    return row | {name: final[name] for name in ("status", "best_step", *costs)}


def _trials(record: Run) -> list[Row]:
    return sorted(record.find(kind="trial"), key=lambda row: int(row["number"]))


def _loss(row: Row) -> float:
    """The loss to minimise: the dev loss, infinite where a trial diverged or failed."""
    return math.inf if row["dev_loss"] is None or row["status"] != "ok" else float(row["dev_loss"])


def _best(record: Run) -> Row | None:
    row = min(_trials(record), key=_loss, default=None)
    return row if row is not None and math.isfinite(_loss(row)) else None


def _keep_best(options: TuneOptions, record: Run) -> None:
    """Write the options of a run with the best values so far, without a folder, which is given with --out."""
    best = _best(record)
    if best is None:
        return
    chosen = _train_options(options, {name: best[name] for name in SEARCHED if name in best})
    config = {name: value for name, value in config_of(chosen).items() if value is not None and name != "out"}
    write_atomically(record.folder / BEST, toml.dumps(config))


def table(rows: list[Row], names: tuple[str, ...]) -> str:
    """Return the trials as text, the lowest dev loss first."""
    lines = [f"{'trial':>6}" + "".join(f"{name:>12}" for name in names) + f"{'dev loss':>12}{'forward':>10}  status"]
    for row in sorted((row for row in rows if row["kind"] == "trial"), key=_loss):
        loss = "-" if row["dev_loss"] is None else f"{row['dev_loss']:.4f}"
        values = "".join(f"{row[name]:12.3g}" for name in names)
        lines.append(f"{row['number']:6}{values}{loss:>12}{row.get('forward_passes', '-'):>10}  {row['status']}")
    return "\n".join(lines)
