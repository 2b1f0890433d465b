"""Runs on the workers of a Ray cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import ray
from ray.exceptions import WorkerCrashedError


def run(calls: Sequence[Callable[[], None]], workers: int, cluster: str | None) -> Iterator[None]:
    """Make the calls on a cluster, each on one of its cores.

    Args:
        calls: the calls.
        workers: cores of the cluster that is started here if none is named.
        cluster: the address of a running cluster, "auto" or HOST:6379 say, or none. Its machines need the checkout at
            the same path.

    Yields:
        nothing, for each call that has ended.
    """
    started = {"address": cluster} if cluster else {"num_cpus": workers, "include_dashboard": False}
    ray.init(**started, log_to_driver=False)
    try:
        make = ray.remote(num_cpus=1, max_retries=0)(_make)
        waiting = [make.remote(call) for call in calls]
        while waiting:
            (ended,), waiting = ray.wait(waiting)
            with suppress(WorkerCrashedError):  # its run is still missing, and the caller counts how often
                ray.get(ended)
            yield
    finally:
        ray.shutdown()


def _make(call: Callable[[], None]) -> None:
    call()
