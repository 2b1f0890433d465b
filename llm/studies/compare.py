"""A comparison of arms on tasks, from a plan."""

import math
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from llm.model import loading
from llm.options.studies import CompareOptions
from llm.options.train import TrainOptions
from llm.quantised import GGUF
from llm.run.context import split_of
from llm.studies import archive
from llm.studies.forecast import forecast
from llm.studies.overall import Overall
from llm.studies.plan import StudyPlan, read_plan
from llm.studies.queue import OutOfTimeError, Queue, require_workers
from llm.studies.rates import beyond, chosen_rate, mean_dev_loss
from llm.studies.runs import KIND, SEEDS, TUNE, Named, Runs
from zobench.naming import require_known
from zobench.run.progress import note
from zobench.run.records import Row, Run, within

TUNING_SEED = -1


FREE = ("out", "data", "allow_code", "arms", "workers", "backend", "cluster", "hours", "pack", "dry_run")
"""Options that a continued comparison may change."""


def run(options: CompareOptions) -> None:
    """Run the command: CompareOptions says what it does."""
    plan = _some(read_plan(options.plan, options.data, options.allow_code), options)
    if options.dry_run:
        print("\n".join(forecast(plan)))
        return
    _require_data(plan)
    record = Run.joined(options.out, {"command": "compare", **asdict(options)}, free=FREE)
    until = math.inf if options.hours is None else time.time() + 3600 * options.hours
    with record.shared():
        archive.unpack(record.folder, unfinished=True)
        study = Study(plan, record, options.provenance, Queue.of(options, until))
    try:
        print(study.compare(options.arms))
    except OutOfTimeError:
        note(f"{options.hours:g} hours are over: {study.left()}; the same command continues")
    finally:
        if options.pack:
            _pack(study)
    note(f"rows: {options.out}")


def table(finals: Mapping[tuple[str, str], Sequence[Row]], rates: Mapping[str, float | None], tasks: list[str]) -> str:
    """Return the mean test metric of each arm on each task in percent, with the number of its runs and the least and
    the greatest of them, and the learning rate that was chosen.
    """
    width = max(map(len, rates)) + 2
    lines = [f"{'arm':{width}}{'lr':>10}" + "".join(f"{task:>24}" for task in tasks)]
    for arm, lr in rates.items():
        cells = "".join(f"{_cell(finals.get((arm, task), ())):>24}" for task in tasks)
        lines.append(f"{arm:{width}}{'-' if lr is None else f'{lr:g}':>10}{cells}")
    return "\n".join([*lines, "test metric in percent: mean (least to greatest, number of runs)"])


def _cell(rows: Sequence[Row]) -> str:
    scores = [100 * row["test_accuracy"] for row in rows if row.get("test_accuracy") is not None]
    if not scores:
        return "-"
    diverged = "!" if any(row["status"] != "ok" for row in rows) else ""
    return f"{sum(scores) / len(scores):.1f}{diverged} ({min(scores):.1f} to {max(scores):.1f}, {len(rows)})"


def _some(plan: StudyPlan, options: CompareOptions) -> StudyPlan:
    """The plan with nothing to run for the arms that are not asked for."""
    for arm in options.arms:
        require_known(arm, plan.arms, f"arm of {options.plan}:")
    require_workers(options)
    wanted = options.arms or tuple(plan.arms)
    arms = {name: arm if name in wanted else replace(arm, seeds=0) for name, arm in plan.arms.items()}
    return replace(plan, arms=arms, model=options.model or plan.model)


def _require_data(plan: StudyPlan) -> None:
    """Find the examples of every task before the first run, not hours after it."""
    for _, task, arm in {task: (seed, task, arm) for seed, task, arm in rounds(plan)}.values():
        split_of(plan.run_options(task, arm, plan.tasks[task].forward_passes))


def _pack(study: "Study") -> None:
    folder = study.record.folder
    with study.record.shared():
        note(f"{archive.pack(folder, (TUNE, SEEDS))} files in {folder / archive.FILE}")
        for ended in study.ended():  # a run that goes on keeps its checkpoints
            shutil.rmtree(ended, ignore_errors=True)
    for group in (TUNE, SEEDS):
        with suppress(OSError):  # not empty, or not there
            (folder / group).rmdir()


def rounds(plan: StudyPlan) -> Iterator[tuple[int, str, str]]:
    """Every seed, task and arm, all tasks of a seed before the next, so that an interrupted comparison is even."""
    for seed in range(max(task.seeds for task in plan.tasks.values())):
        yield from ((seed, task, arm) for task in plan.tasks for arm in plan.arms if plan.seeds(task, arm) > seed)


class Study:
    """The runs of a plan, each in a folder of its own; those that are finished are read."""

    def __init__(self, plan: StudyPlan, record: Run, provenance: str, queue: Queue | None = None) -> None:
        self.plan, self.record, self.provenance = plan, record, provenance
        self.model = self._base()
        queue = Queue(record.folder) if queue is None else queue
        self.runs = Runs(record, self.options, replace(queue, whole=self._whole()))

    def compare(self, arms: Iterable[str] = ()) -> str:
        """Choose the rates of these arms, of all by default, make their runs, and return the table of both.

        Raises:
            OutOfTimeError: the time is over.
        """
        rates = self.rates(tuple(arms) or tuple(self.plan.arms))
        runs = [self._seed(*each, rates) for each in rounds(self.plan)]
        self.runs.finish(runs, _tell)
        finals: dict[tuple[str, str], list[Row]] = {}
        for run in runs:
            finals.setdefault((run.arm, run.task), []).append(self.runs.find(run) or {})
        return table(finals, rates, list(self.plan.tasks))

    def _whole(self) -> Overall:
        """All runs, but for rates beyond an edge, which nobody knows before."""
        plan = self.plan
        tuned = [arm for arm in plan.arms if any(plan.seeds(task, arm) for task in plan.tasks)]
        trials = [str(run) for arm in tuned for run in self._trials(arm, plan.arms[arm].rates)]
        seeds = {f"{task}-{arm}-{seed}": float(plan.tasks[task].forward_passes) for seed, task, arm in rounds(plan)}
        return Overall({**dict.fromkeys(trials, float(plan.tuning_passes)), **seeds})

    def rates(self, arms: Iterable[str]) -> dict[str, float | None]:
        """Return the rate that the tuning task's dev set chooses for each arm; None where there is nothing to choose.
        All arms are tuned at once, and those whose best rate is at an edge once more.
        """
        tuned = {name: self.plan.arms[name].tied or name for name in arms}
        tried = {name: list(self.plan.arms[name].rates) for name in dict.fromkeys(tuned.values())}
        for _ in range(1 + self.plan.refine):
            self.runs.finish((run for name in tried for run in self._trials(name, tried[name])), _tell)
            further = {name: self._further(name, rates) for name, rates in tried.items() if rates}
            for name, lr in further.items():
                tried[name] += [] if lr is None else [lr]
        found = {name: self._chosen(name, rates) if rates else None for name, rates in tried.items()}
        return {name: _times(found[source], self.plan.arms[name].times) for name, source in tuned.items()}

    def options(self, run: Named) -> TrainOptions:
        """Return the options of a run."""
        tuning = run.group == TUNE
        passes = self.plan.tuning_passes if tuning else self.plan.tasks[run.task].forward_passes
        seed = "" if run.seed == TUNING_SEED else f"-seed{run.seed}"
        name = f"{run.task}-{run.arm}-lr{run.lr:g}{seed}" if tuning else f"{run.task}-{run.arm}-seed{run.seed}"
        folder = within(self.record.folder, f"{run.group}/{name}")
        changes = {"seed": run.seed, "out": str(folder), "provenance": self.provenance}
        changes |= {"save": False} | ({} if run.lr is None else {"lr": run.lr})
        changes |= {"baselines": False} if tuning else {}
        options = self.plan.run_options(run.task, run.arm, passes, **changes)
        return options if options.quantize == GGUF else replace(options, model=self.model)

    def ended(self) -> Iterator[Path]:
        """Yield the folder of each run of the plan whose row the record has."""
        for row in self.record.find(kind=KIND):
            if row["arm"] in self.plan.arms and row["task"] in self.plan.tasks:
                yield Path(self.options(Named(**{name: row[name] for name in Named._fields})).out)

    def left(self) -> str:
        """Return how many runs of the plan are kept, in words."""
        kept = [row for row in self.record.find(group=SEEDS) if row["arm"] in self.plan.arms]
        return f"{len(kept)} of {sum(1 for _ in rounds(self.plan))} runs are done"

    def _trials(self, arm: str, rates: Iterable[float]) -> Iterator[Named]:
        seeds = range(TUNING_SEED, TUNING_SEED - self.plan.tuning_seeds, -1)
        return (Named(TUNE, self.plan.tuned_on, arm, seed, lr) for lr in rates for seed in seeds)

    def _loss(self, arm: str, lr: float) -> float:
        finals = (row for run in self._trials(arm, (lr,)) if (row := self.runs.find(run)))
        return mean_dev_loss(finals, self.plan.tuning_evaluations)

    def _further(self, arm: str, rates: list[float]) -> float | None:
        if len(rates) >= len(self.plan.arms[arm].rates) + self.plan.refine:
            return None
        return beyond(min(rates, key=lambda lr: self._loss(arm, lr)), rates)

    def _chosen(self, arm: str, rates: list[float]) -> float:
        with self.record.shared():
            return chosen_rate(self.record, arm, rates, lambda lr: self._loss(arm, lr))

    def _seed(self, seed: int, task: str, arm: str, rates: dict[str, float | None]) -> Named:
        return Named(SEEDS, task, arm, seed, rates[arm])

    def _base(self) -> str:
        """The model, or a copy of a slowly read one that every run which keeps no codes can load: GGUF files are
        dequantised once.
        """
        if self.plan.model != loading.SMOLLM2 and not self.plan.model.endswith(".gguf"):
            return self.plan.model
        folder = self.record.folder / "base" / Path(self.plan.model).stem
        if not (folder / "tokenizer_config.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            loading.save(loading.load(self.plan.model), folder)
        return str(folder)


def _times(lr: float | None, factor: float) -> float | None:
    return None if lr is None else lr * factor


def _tell(run: Named, row: Row) -> None:
    if run.group == SEEDS:
        tested = f"test {row.get('metric', 'accuracy')} {row['test_accuracy']:.1%}"
        print(f"{run.task}, seed {run.seed}, {run.arm}: {tested} ({row['status']})", flush=True)
