"""Runs on the workers of a dask cluster."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress

from distributed import Client, LocalCluster, as_completed
from distributed.scheduler import KilledWorker


def run(calls: Sequence[Callable[[], None]], workers: int, cluster: str | None) -> Iterator[None]:
    """Make the calls on a cluster.

    Args:
        calls: the calls; dask repeats one whose worker died.
        workers: processes of the cluster that is started here if none is named.
        cluster: the address of a scheduler, tcp://HOST:8786 say, or none. Its workers have to be started from the
            checkout, with one thread each.

    Yields:
        nothing, for each call that has ended.
    """
    with ExitStack() as stack:
        local = None if cluster else stack.enter_context(_local(workers))
        client = stack.enter_context(Client(local or cluster))
        for future in as_completed([client.submit(call, pure=False) for call in calls]):
            with suppress(KilledWorker):  # its run is still missing, and the caller counts how often
                future.result()
            yield


def _local(workers: int) -> LocalCluster:
    return LocalCluster(
        n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    )
