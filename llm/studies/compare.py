"""A comparison of arms on tasks, from a plan."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from llm.loop.train import train
from llm.model import loading
from llm.options.studies import CompareOptions
from llm.run.context import split_of
from llm.studies.overall import Overall
from llm.studies.plan import StudyPlan, read_plan
from llm.studies.rates import chosen_rate, mean_dev_loss
from zobench.run.progress import note
from zobench.run.records import Row, Run, within

TUNING_SEED = -1


def run(options: CompareOptions) -> None:
    """Run the command: CompareOptions says what it does."""
    plan = read_plan(options.plan, options.data, options.allow_code)
    _require_data(plan)
    record = Run(options.out, {"command": "compare", **asdict(options)}, free=("out", "data", "allow_code"))
    study = Study(plan, record, options.provenance)
    rates = {arm: study.rate(arm) for arm in plan.arms}
    finals: dict[tuple[str, str], list[Row]] = {}
    for seed, task, arm in rounds(plan):
        row = study.train(arm, rates[arm], task, seed)
        note(f"{task}, seed {seed}, {arm}: test {row.get('metric', 'accuracy')} {row['test_accuracy']:.1%}")
        finals.setdefault((arm, task), []).append(row)
    print(table(finals, rates, list(plan.tasks)))
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


def _require_data(plan: StudyPlan) -> None:
    """Find the examples of every task before the first run, not hours after it."""
    for _, task, arm in {task: (seed, task, arm) for seed, task, arm in rounds(plan)}.values():
        split_of(plan.run_options(task, arm, plan.tasks[task].forward_passes))


def rounds(plan: StudyPlan) -> Iterator[tuple[int, str, str]]:
    """Every seed, task and arm, all tasks of a seed before the next, so that an interrupted comparison is even."""
    for seed in range(max(task.seeds for task in plan.tasks.values())):
        yield from ((seed, task, arm) for task in plan.tasks for arm in plan.arms if plan.seeds(task, arm) > seed)


def _name(task: str, arm: str, which: float | int | None) -> str:
    """The name of a run: one that tunes is told by its rate, the others by their seed."""
    return f"{task}-{arm}-{f'seed{which}' if isinstance(which, int) else f'lr{which:g}'}"


class Study:
    """The runs of a plan, each in a folder of its own; those that are finished are read."""

    def __init__(self, plan: StudyPlan, record: Run, provenance: str) -> None:
        self.plan, self.record, self.provenance = plan, record, provenance
        self.model = self._base()
        tuning = [_name(plan.tuned_on, arm, lr) for arm in plan.arms for lr in plan.arms[arm].rates]
        seeds = {_name(task, arm, seed): float(plan.tasks[task].forward_passes) for seed, task, arm in rounds(plan)}
        self.whole = Overall({**dict.fromkeys(tuning, float(plan.tuning_passes)), **seeds})

    def rate(self, arm: str) -> float | None:
        """Return the rate that the tuning task's dev set chooses; None where there is nothing to choose."""
        rates = self.plan.arms[arm].rates
        return chosen_rate(self.record, arm, rates, partial(self._dev_loss, arm)) if rates else None

    def train(self, arm: str, lr: float | None, task: str, seed: int, tuning: bool = False) -> Row:
        """Return the final row of one run, made now if it is not there."""
        passes = self.plan.tuning_passes if tuning else self.plan.tasks[task].forward_passes
        name = _name(task, arm, lr if tuning else seed)
        folder = within(self.record.folder, f"{'tune' if tuning else 'seeds'}/{name}")
        changes = {"model": self.model, "seed": seed, "out": str(folder), "provenance": self.provenance}
        changes |= {"save": False} | ({} if lr is None else {"lr": lr})
        with self.whole.run(name, folder):
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
