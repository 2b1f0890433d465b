"""The runs of a study as a queue that any number of processes work off: who claims a run makes it.

The run folders are all that the processes have in common: no server, no database. A run whose process died is claimed
by another one and goes on from its journal or checkpoint.
"""

import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, TypeVar

from llm.options.studies import BACKENDS, WorkerOptions
from llm.studies.overall import Overall
from zobench.distributed import launched
from zobench.naming import require_known
from zobench.run.claims import Claims
from zobench.run.progress import bar, note, quietly

ATTEMPTS = 5
"""Times that a call gives a run to workers of its own before it takes the run for what ends them."""
POLL = 1.0
"""Seconds between two looks at runs that other workers make."""


class OutOfTimeError(Exception):
    """The time that was given is over; the runs that ended are kept."""


class Job(Protocol):
    """A run of a study: what a worker process is sent, so it holds options and no model."""

    @property
    def name(self) -> str:
        """The name among all runs of the study, by which it is claimed."""
        ...

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        ...

    @property
    def study(self) -> Path:
        """The folder of the study."""
        ...

    def done(self) -> bool:
        """Return whether the files tell the end of the run now, whoever made it."""
        ...

    def make(self) -> None:
        """Make the run or let it go on, and keep what `done` looks for."""
        ...


AnyJob = TypeVar("AnyJob", bound=Job)
Call = Callable[[], None]
Backend = Callable[[Sequence[Call], int, str | None], Iterator[None]]
"""Makes the calls on so many workers of a cluster; yields when one has ended or its worker has died, and raises what a
call raised."""


@dataclass(frozen=True, eq=False)
class Queue:
    """The runs of a study, taken by this process or by workers that it starts.

    Args:
        folder: the folder of the study.
        workers: number of worker processes; with one and without a backend the runs are made in this process.
        backend: name of the engine that has the workers; by default joblib where there are several.
        cluster: which of the engine's clusters; by default one on this machine.
        until: when no further run begins, by `time.time`.
        whole: all runs by name, of which bars tell the part.
    """

    folder: Path
    workers: int = 1
    backend: str | None = None
    cluster: str | None = None
    until: float = math.inf
    whole: Overall = field(default_factory=lambda: Overall({}))

    @classmethod
    def of(cls, options: WorkerOptions, until: float = math.inf, whole: Overall | None = None) -> "Queue":
        """Return the queue that options of the command line ask for."""
        given = {name: getattr(options, name) for name in ("workers", "backend", "cluster")}
        return cls(Path(options.out), **given, until=until, whole=whole or Overall({}))

    def finish(self, jobs: Iterable[AnyJob], told: Callable[[AnyJob], None] = lambda _: None) -> None:
        """Return when all runs have ended, those here and those of other workers; each is told as it ends.

        Raises:
            OutOfTimeError: the time is over.
            ChildProcessError: workers die in the same run again and again.
        """
        pending, claims, tries = {job.name: job for job in jobs}, Claims(self.folder), Counter[str]()
        waiting = False

        def look() -> int:
            for job in [job for job in pending.values() if job.done()]:
                claims.clear(job.name)
                told(pending.pop(job.name))
            return len(pending)

        while look():
            if time.time() >= self.until:
                raise OutOfTimeError
            made = False
            for _ in self._some(list(pending.values()), claims, tries):
                made = True
                look()
            if not made:
                if not waiting:
                    note(f"other workers make the {len(pending)} runs that are left: waiting for them")
                waiting = True
                time.sleep(POLL)

    def _some(self, jobs: list[AnyJob], claims: Claims, tries: Counter[str]) -> Iterator[None]:
        """Make the first run that is free, or let workers make all that are; yields when one has ended."""
        free = ((job, number) for job in jobs if (number := claims.free(job.name)) is not None)
        if self.workers == 1 and self.backend is None:
            if any(self._here(job, claims, number) for job, number in free):
                yield
            return
        given = list(free)
        if not given:
            return
        _count(tries, given)
        with bar(total=len(given), desc="runs", unit="runs") as shown:
            for _ in self._engine()(self._calls(given), self.workers, self.cluster):
                yield
                shown.update()

    def _here(self, job: Job, claims: Claims, number: int) -> bool:
        claim = claims.claim(job.name, number)
        if claim is None:
            return False
        with claim:
            if not job.done():
                with self.whole.run(job.name, job.folder):
                    job.make()
        return True

    def _calls(self, given: list[tuple[AnyJob, int]]) -> list[Call]:
        return [partial(make_on_worker, job, number, self.until, os.getcwd()) for job, number in given]

    def _engine(self) -> Backend:
        return engine(self.backend or "joblib")


def require_workers(options: WorkerOptions) -> None:
    """Raise ValueError, before anything is loaded, if there are no such workers, or torchrun has started others."""
    if launched():
        raise ValueError(
            f"torchrun has started {os.environ['WORLD_SIZE']} processes, which share the steps of `train` alone: give "
            f"this command without torchrun, with --workers {os.environ['WORLD_SIZE']} for as many runs at once, and "
            "--backend for those of other machines"
        )
    if options.workers < 1:
        raise ValueError(f"workers is {options.workers}: give 1 or more processes")
    if options.cluster is not None and options.backend in (None, "joblib"):
        raise ValueError(f"cluster is {options.cluster!r}: give it with --backend dask, submitit or ray")
    if options.backend is not None or options.workers > 1:
        engine(options.backend or "joblib")


def engine(name: str) -> Backend:
    """Return the function of an engine.

    Raises:
        ValueError: there is none of this name, or it is not installed.
    """
    require_known(name, BACKENDS, "backend")
    library = BACKENDS[name]
    try:
        import_module(library)
    except ImportError:
        raise ValueError(f"--backend {name} needs {library}: pip install '{library}'") from None
    run: Backend = import_module(f"llm.studies.backends.with_{name}").run
    return run


def make_on_worker(job: Job, number: int, until: float, directory: str) -> None:
    """Make a run in a worker process with one torch thread, unless others have claimed or made it, or the time is over.

    Args:
        job: the run.
        number: the number of the claim, as the process saw it that looked for stale ones.
        until: when no further run begins, by `time.time`.
        directory: the working directory that paths are relative to.
    """
    import torch

    os.chdir(directory)
    torch.set_num_threads(1)
    claim = None if time.time() >= until else Claims(job.study).claim(job.name, number)
    if claim is not None:
        with claim, quietly():
            if not job.done():
                job.make()


def _count(tries: Counter[str], given: Sequence[tuple[Any, int]]) -> None:
    tries.update(job.name for job, _ in given)
    for name, times in tries.items():
        if times > ATTEMPTS:
            raise ChildProcessError(
                f"workers ended in {name} {ATTEMPTS} times without an error, perhaps because memory was short: give "
                "fewer --workers, or read the logs of the backend; all measurements are kept"
            )
