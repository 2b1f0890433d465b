"""The plan of a comparison: a TOML file with tasks, arms, and what both share."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from llm.options.train import TrainOptions
from llm.run.check import check
from llm.steppers.method import TrainingMethod
from llm.studies.rates import forward_passes_a_step
from llm.tasks import find
from zobench.naming import require_known
from zobench.numbers import require_rates
from zobench.run.options import checked, read_toml, running_code

Values = dict[str, Any]
DECIDED = ("lr", "steps", "seed", "out", "eval_every", "resume")
"""Options of a run that the plan decides in ways of its own."""
COUNTS = {"tuning_passes": 1, "evaluations": 1, "tuning_seeds": 1, "tuning_evaluations": 1, "refine": 0}
"""Whole numbers of a plan, with the least of each."""
UNREAD = ("preset", "dry_run")
"""Options of the command line, which a plan would name in vain."""


@dataclass(frozen=True)
class TaskPlan:
    """Runs of each arm on one task: how many seeds, and for how many forward passes; `options` are those of train."""

    seeds: int = 1
    forward_passes: int = 400
    options: Values = field(default_factory=dict)


@dataclass(frozen=True)
class Arm:
    """What is compared: training options, and the rates among which the tuning task chooses; none: nothing is tuned.

    `tied` names an arm whose chosen rate this one takes, `times` a factor, in place of rates of its own. `seeds` bounds
    the task's own number, for what no seed changes; `tasks` are those it is run on, none meaning all.
    """

    rates: tuple[float, ...] = ()
    tied: str | None = None
    times: float = 1.0
    seeds: int | None = None
    tasks: tuple[str, ...] = ()
    options: Values = field(default_factory=dict)


@dataclass(frozen=True)
class StudyPlan:
    """A comparison: every arm on every task, at equal forward passes, at the rate that `tuned_on`'s dev set chose.

    A backward pass counts as two forward ones. `options` are those of all runs, which a task's override, and an arm's
    these. The rate is chosen on other seeds than those of the runs, `tuning_seeds` of them, at `tuning_passes`, by the
    mean dev loss of the last `tuning_evaluations`. Where the best rate is at an edge, up to `refine` further rates are
    tried beyond it.
    """

    model: str
    tuned_on: str
    tuning_passes: int
    tasks: dict[str, TaskPlan]
    arms: dict[str, Arm]
    evaluations: int = 4
    tuning_seeds: int = 1
    tuning_evaluations: int = 1
    refine: int = 0
    options: Values = field(default_factory=dict)

    def seeds(self, task: str, arm: str) -> int:
        """Return the number of runs of an arm on a task."""
        most, chosen = self.tasks[task].seeds, self.arms[arm]
        if chosen.tasks and task not in chosen.tasks:
            return 0
        return most if chosen.seeds is None else min(most, chosen.seeds)

    def run_options(self, task: str, arm: str, passes: int, **changes: Any) -> TrainOptions:
        """Return the options of one run of so many forward passes."""
        values = {**self.options, **self.tasks[task].options, **self.arms[arm].options, **changes}
        options = TrainOptions(**{"model": self.model, "task": task, **values})
        if not (self.arms[arm].rates or self.arms[arm].tied):
            return options
        sizes = {name: getattr(options, name) for name in ("batch", "train", "anchor_examples")}
        steps = passes // forward_passes_a_step(options.method, options.epsilon, **sizes)
        if steps < 1:
            raise ValueError(f"{passes} forward passes are not enough for one step of {arm} ({options.method})")
        return replace(options, steps=steps, eval_every=max(1, steps // self.evaluations))


def read_plan(file: str, data: str | None, allow_code: bool = False) -> StudyPlan:
    """Return the plan of a file; data folders in it are below `data`, task files beside it. It may name Python code to
    run only with `allow_code`.

    Raises:
        UnknownNameError: a key is unknown; the message names the nearest.
        ValueError: the file is missing or no TOML, a value is out of range, or one asks for code.
    """
    contents = read_toml(file)
    parts = {name: _table(contents.pop(name, {}), f"{name} in {file}") for name in ("train", "tasks", "arms")}
    tasks = {name: _task(name, values, file, data) for name, values in parts["tasks"].items()}
    arms = {name: _arm(values, f"arms.{name} in {file}") for name, values in parts["arms"].items()}
    plan = StudyPlan(
        **{**_scalars(contents, file), "tasks": tasks, "arms": arms}, options=_run(parts["train"], f"train in {file}")
    )
    if not allow_code:
        _require_no_code(plan, file)
    require_known(plan.tuned_on, tasks, f"task in {file}:")
    if not arms:
        raise ValueError(f"{file} has no arms: give a table [arms.NAME] with a method")
    for arm in arms:
        _require_rates(plan, arm, file)
        for task in arms[arm].tasks:
            require_known(task, tasks, f"task of arms.{arm} in {file}:")
        if arms[arm].rates:
            _require_possible(plan.run_options(plan.tuned_on, arm, plan.tuning_passes))
        for task in (name for name in tasks if plan.seeds(name, arm)):
            _require_possible(plan.run_options(task, arm, plan.tasks[task].forward_passes))
    return plan


def _require_no_code(plan: StudyPlan, file: str) -> None:
    """Refuse what would run Python code that is not zobench's, before any of it is looked up."""
    parts = {"train": plan.options, "": {"model": plan.model}}
    parts |= {f"tasks.{name}": {"task": name, **task.options} for name, task in plan.tasks.items()}
    parts |= {f"arms.{name}": arm.options for name, arm in plan.arms.items()}
    for table, values in parts.items():
        for name, value in running_code(TrainOptions, values).items():
            raise ValueError(
                f"{name} = {value!r} in {table} in {file} would run Python code, which a file cannot ask for: if you "
                "trust that code, give --allow-code on the command line"
            )


def _require_rates(plan: StudyPlan, name: str, file: str) -> None:
    """Refuse an arm whose steps no budget and no choice would decide, or that has nothing to choose for."""
    arm = plan.arms[name]
    if arm.tied is not None:
        _require_tie(plan, name, file)
        return
    method = str({**plan.options, **arm.options}.get("method", TrainOptions.method))
    if not arm.rates and TrainingMethod.parse(method).takes_steps:
        raise ValueError(
            f"arms.{name} in {file} has no rates: give the learning rates to choose from for {method}, or one rate"
        )
    if arm.rates and not TrainingMethod.parse(method).takes_steps:
        raise ValueError(f"arms.{name} in {file} has rates, but {method} takes no step: leave them out")


def _require_tie(plan: StudyPlan, name: str, file: str) -> None:
    """Refuse an arm that is tied to one without rates, or that has both."""
    arm, where = plan.arms[name], f"arms.{name} in {file}"
    require_known(str(arm.tied), plan.arms, f"arm that {where} is tied to:")
    if arm.rates or not plan.arms[str(arm.tied)].rates:
        raise ValueError(f"{where} is tied to {arm.tied}: give rates to {arm.tied}, and none to {name}")
    if not arm.times > 0:
        raise ValueError(f"times in {where} is {arm.times}: give a positive factor of the rate of {arm.tied}")


def _require_possible(options: TrainOptions) -> None:
    check(options)
    baseline = TrainingMethod.parse(options.method).baseline
    if baseline:
        baseline.check(find(options.task))


def _scalars(contents: Values, file: str) -> Values:
    wanted = {"model": str, "tuned_on": str} | dict.fromkeys(COUNTS, int)
    for name, value in contents.items():
        require_known(name, wanted, f"key in {file}:")
        if type(value) is not wanted[name]:
            raise ValueError(f"{name} in {file} is {value!r}: give a {wanted[name].__name__}")
        if isinstance(value, int) and value < COUNTS[name]:
            raise ValueError(f"{name} in {file} is {value}: give {COUNTS[name]} or more")
    for name in ("model", "tuned_on", "tuning_passes"):
        if name not in contents:
            raise ValueError(f"{file} does not say {name}")
    return contents


def _task(name: str, values: Values, file: str, data: str | None) -> TaskPlan:
    own, options = _apart(_table(values, f"tasks.{name} in {file}"), TaskPlan, f"tasks.{name} in {file}")
    if data is not None and "data" in options:
        options["data"] = str(Path(data) / options["data"])
    if str(options.get("task", "")).endswith(".toml"):
        options["task"] = str(Path(file).parent / options["task"])
    return TaskPlan(**own, options=options)


def _arm(values: Values, where: str) -> Arm:
    own, options = _apart(_table(values, where), Arm, where)
    require_rates(where, own.get("rates", ()))
    return Arm(**own, options=options)


def _apart(values: Values, cls: type[TaskPlan] | type[Arm], where: str) -> tuple[Values, Values]:
    """The entries of a table that the plan itself reads, and the options of train among the rest."""
    names = [name for name in cls.__dataclass_fields__ if name != "options"]
    own = {name: value for name, value in values.items() if name in names}
    return checked(cls, own, where), _run({k: v for k, v in values.items() if k not in own}, where)


def _run(values: Values, where: str) -> Values:
    for name in DECIDED:
        if name in values:
            raise ValueError(f"{name} in {where}: a plan decides it itself, by rates, forward_passes and seeds")
    for name in UNREAD:
        if name in values:
            raise ValueError(f"{name} in {where}: a plan does not read it, give the options themselves")
    return checked(TrainOptions, values, where)


def _table(value: Any, where: str) -> Values:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is {value!r}: give a table")
    return value
