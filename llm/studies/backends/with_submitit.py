"""Runs as jobs of a SLURM cluster, or as processes of this machine, by submitit."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import submitit
from submitit.core.utils import UncompletedJobError

LOGS = "runs/submitit"
"""Where submitit keeps scripts and logs of its jobs, below the working directory, which all machines share."""
POLL = 1.0


def run(calls: Sequence[Callable[[], None]], workers: int, cluster: str | None) -> Iterator[None]:
    """Make each call as a job, at most so many at once.

    Args:
        calls: the calls.
        workers: jobs at once.
        cluster: "slurm" or "local", the default, and after a colon parameters of submitit's executor, as
            slurm:slurm_partition=gpu,timeout_min=600.

    Yields:
        nothing, for each call that has ended.
    """
    kind, _, given = (cluster or "local").partition(":")
    executor = submitit.AutoExecutor(folder=LOGS, cluster=kind)
    executor.update_parameters(name="zobench", cpus_per_task=1, **_parameters(given))
    waiting, going = list(reversed(calls)), list[Any]()
    while waiting or going:
        while waiting and len(going) < workers:
            going.append(executor.submit(waiting.pop()))
        ended = [job for job in going if job.done()]
        going = [job for job in going if job not in ended]
        for job in ended:
            _result(job)
            yield
        if not ended:
            time.sleep(POLL)


def _result(job: Any) -> None:
    """Raise what the call raised; a job that died without an error has left its run to others."""
    with suppress(UncompletedJobError):
        job.result()


def _parameters(given: str) -> dict[str, Any]:
    """The parameters after the colon; whole numbers are numbers.

    Raises:
        ValueError: one has no value.
    """
    parameters: dict[str, Any] = {"timeout_min": 24 * 60}
    for part in filter(None, given.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"--cluster has {part!r}: give NAME=VALUE, as in slurm:timeout_min=600")
        parameters[name] = int(value) if value.isdecimal() else value
    return parameters
