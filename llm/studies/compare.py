"""A comparison of arms on tasks, from a plan."""

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from llm.loop.train import train
from llm.model import loading
from llm.options.groups import ResultOptions
from llm.run.context import split_of
from llm.studies.plan import StudyPlan, read_plan
from llm.studies.rates import chosen_rate, mean_dev_loss
from zobench.run.options import option
from zobench.run.progress import note
from zobench.run.records import Row, Run, within

TUNING_SEED = -1


@dataclass(frozen=True)
class CompareOptions(ResultOptions):
    """Options of `python -m llm compare`."""

    plan: str = option("llm/studies/smollm2.toml", "TOML file of tasks and arms; docs/smollm2.md describes it")
    data: str | None = option(None, "folder that holds the data folders of the plan")
    allow_code: bool = option(
        False, "run the Python code that the plan names (own methods, models' own code)", code=True
    )
    out: str = "runs/compare"


def run(options: CompareOptions) -> None:
    """Run every arm of a plan on every task, rates chosen on dev of one task; resumes from its own runs."""
    plan = read_plan(options.plan, options.data, options.allow_code)
    _require_data(plan)
    record = Run(options.out, {"command": "compare", **asdict(options)}, free=("out", "data", "allow_code"))
    study = Study(plan, record, options.provenance)
    rates = {arm: study.rate(arm) for arm in plan.arms}
    for seed, task, arm in rounds(plan):
        row = study.train(arm, rates[arm], task, seed)
        print(f"{task}, seed {seed}, {arm}: test {row.get('metric', 'accuracy')} {row['test_accuracy']:.1%}")
    note(f"rows: {options.out}")


def _require_data(plan: StudyPlan) -> None:
    """Find the examples of every task before the first run, not hours after it."""
    for _, task, arm in {task: (seed, task, arm) for seed, task, arm in rounds(plan)}.values():
        split_of(plan.run_options(task, arm, plan.tasks[task].forward_passes))


def rounds(plan: StudyPlan) -> Iterator[tuple[int, str, str]]:
    """Every seed, task and arm, all tasks of a seed before the next, so that an interrupted comparison is even."""
    for seed in range(max(task.seeds for task in plan.tasks.values())):
        yield from ((seed, task, arm) for task in plan.tasks for arm in plan.arms if plan.seeds(task, arm) > seed)


class Study:
    """The runs of a plan, each in a folder of its own; those that are finished are read."""

    def __init__(self, plan: StudyPlan, record: Run, provenance: str) -> None:
        self.plan, self.record, self.provenance = plan, record, provenance
        self.model = self._base()

    def rate(self, arm: str) -> float | None:
        """Return the rate that the tuning task's dev set chooses; None where there is nothing to choose."""
        rates = self.plan.arms[arm].rates
        return chosen_rate(self.record, arm, rates, partial(self._dev_loss, arm)) if rates else None

    def train(self, arm: str, lr: float | None, task: str, seed: int, tuning: bool = False) -> Row:
        """Return the final row of one run, made now if it is not there."""
        passes = self.plan.tuning_passes if tuning else self.plan.tasks[task].forward_passes
        name = f"{task}-{arm}-lr{lr:g}" if tuning else f"{task}-{arm}-seed{seed}"
        folder = within(self.record.folder, f"{'tune' if tuning else 'seeds'}/{name}")
        changes = {"model": self.model, "seed": seed, "out": str(folder), "provenance": self.provenance}
        changes |= {"save": False} | ({} if lr is None else {"lr": lr})
        return train(self.plan.run_options(task, arm, passes, **changes))

    def _dev_loss(self, arm: str, lr: float) -> float:
        return mean_dev_loss([self.train(arm, lr, self.plan.tuned_on, TUNING_SEED, tuning=True)])

    def _base(self) -> str:
        """The model, or a copy of a slowly read one that every run can load: GGUF files are dequantised once."""
        if self.plan.model != loading.SMOLLM2 and not self.plan.model.endswith(".gguf"):
            return self.plan.model
        folder = self.record.folder / "base" / Path(self.plan.model).stem
        if not (folder / "tokenizer_config.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            loading.save(loading.load(self.plan.model), folder)
        return str(folder)
