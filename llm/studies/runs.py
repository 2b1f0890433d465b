"""Runs of a study in several processes, until the time is over."""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

from llm.loop.train import train
from llm.options.train import TrainOptions
from llm.run.folder import RunFolder
from llm.studies.overall import Overall
from zobench.run.records import Row, Run

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


class OutOfTimeError(Exception):
    """The time that was given is over; the runs that ended are kept."""


@dataclass(frozen=True, eq=False)
class Runs:
    """The runs of a study: each is made once, and kept as a row of the record, its final row with its learning curve.

    Args:
        record: keeps the rows.
        options: the options of a run.
        workers: number of processes; with one the runs are made in this one.
        until: when no further run begins, by `time.monotonic`.
        whole: all runs by name, of which bars tell the part.
    """

    record: Run
    options: Callable[[Named], TrainOptions]
    workers: int = 1
    until: float = float("inf")
    whole: Overall = field(default_factory=lambda: Overall({}))

    def find(self, run: Named) -> Row | None:
        """Return the row of a run that has ended."""
        kept = self.record.find(**run.row)
        return kept[-1] if kept else None

    def finish(self, runs: Iterable[Named], told: Callable[[Named, Row], None]) -> None:
        """Make the runs that are missing, in their order, and keep each as it ends.

        Raises:
            OutOfTimeError: the time is over.
        """
        missing = [run for run in dict.fromkeys(runs) if self.find(run) is None]
        for run, row in (self._here if self.workers == 1 else self._beside)(missing):
            self.record.append({**run.row, **row})
            told(run, row)

    def _here(self, runs: list[Named]) -> Iterator[tuple[Named, Row]]:
        for run in runs:
            self._require_time()
            options = self.options(run)
            with self.whole.run(run.name, Path(options.out)):
                row = ended(options)
            yield run, row

    def _beside(self, runs: list[Named]) -> Iterator[tuple[Named, Row]]:
        """As many at once as there are workers; those that have begun are waited for when the time is over."""
        waiting, going = iter(runs), dict[Future[Row], Named]()
        with ProcessPoolExecutor(self.workers, get_context("spawn")) as pool:
            while True:
                while len(going) < self.workers and time.monotonic() < self.until and (run := next(waiting, None)):
                    going[pool.submit(ended, self.options(run))] = run
                if not going:
                    break
                for future in wait(going, return_when=FIRST_COMPLETED).done:
                    yield going.pop(future), future.result()
        if next(waiting, None):
            raise OutOfTimeError

    def _require_time(self) -> None:
        if time.monotonic() >= self.until:
            raise OutOfTimeError


def ended(options: TrainOptions) -> Row:
    """Make a run, or read it if it has ended, and return its final row with its learning curve: forward passes, dev
    loss and dev accuracy at each evaluation.
    """
    final = train(options)
    rows = RunFolder.read(Path(options.out)).rows_of("evaluation")
    curve: list[list[Any]] = [[row.get("forward_passes"), row["dev_loss"], row["dev_accuracy"]] for row in rows]
    left = ("kind", "task", "seed", "lr", "weights")
    return {name: value for name, value in final.items() if name not in left} | {"curve": curve}
