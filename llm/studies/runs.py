"""The runs of a comparison: each is made once, by whichever worker claims it, and kept as a row."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llm.loop.train import train
from llm.options.train import TrainOptions
from llm.run.folder import RunFolder
from llm.studies.queue import Queue
from zobench.run.records import Row, Run, rows_now, rows_with

KIND = "arm-run"
TUNE, SEEDS = "tune", "seeds"
"""Groups of runs: those that choose a rate, and those that are compared."""


class Named(NamedTuple):
    """A run of a study by what tells it from the others."""

    group: str
    task: str
    arm: str
    seed: int
    lr: float | None

    @property
    def name(self) -> str:
        """The name among all runs of a study, those at a chosen rate without the rate."""
        return str(self) if self.group == TUNE else f"{self.task}-{self.arm}-{self.seed}"

    @property
    def row(self) -> Row:
        """What its row says of it."""
        return {"kind": KIND, **self._asdict()}


@dataclass(frozen=True)
class ArmRun:
    """A run of an arm, kept as a row of the comparison: its final row with its learning curve."""

    run: Named
    options: TrainOptions
    study: Path

    @property
    def name(self) -> str:
        """The name by which it is claimed."""
        return self.run.name

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.options.out)

    def done(self) -> bool:
        """Return whether the record has the row of the run."""
        return bool(rows_with(rows_now(self.study), **self.run.row))

    def make(self) -> None:
        """Make the run, or let it go on. One that chooses a rate leaves the test examples alone."""
        row = ended(self.options, test=self.run.group == SEEDS)
        # A quantised run has a group of its own, that of its scales: the row is found by the study's.
        Run.reopened(self.study).add({**self.run.row, **row, **self.run.row})


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a study, each of which is made once.

    Args:
        record: has the rows of runs that have ended.
        options: the options of a run.
        queue: makes runs.
    """

    record: Run
    options: Callable[[Named], TrainOptions]
    queue: Queue

    def find(self, run: Named) -> Row | None:
        """Return the row of a run that has ended."""
        kept = self.record.find(**run.row)
        return kept[-1] if kept else None

    def finish(self, runs: Iterable[Named], told: Callable[[Named, Row], None]) -> None:
        """Return when all runs are kept, of which this call makes those that are missing, in their order.

        Raises:
            OutOfTimeError: the time is over.
        """
        missing = [run for run in dict.fromkeys(runs) if self.find(run) is None]

        def tell(job: ArmRun) -> None:
            self.record.refresh()
            told(job.run, self.find(job.run) or {})

        self.queue.finish([ArmRun(run, self.options(run), self.record.folder) for run in missing], tell)


def ended(options: TrainOptions, test: bool = True) -> Row:
    """Make a run, or read it if it has ended, and return its final row with its learning curve: forward passes, dev
    loss and dev accuracy at each evaluation. Without `test` the weights are not measured on test.
    """
    final = train(options, test)
    rows = RunFolder.read(Path(options.out)).rows_of("evaluation")
    curve: list[list[Any]] = [[row.get("forward_passes"), row["dev_loss"], row["dev_accuracy"]] for row in rows]
    left = ("kind", "task", "seed", "lr", "weights")
    return {name: value for name, value in final.items() if name not in left} | {"curve": curve}
