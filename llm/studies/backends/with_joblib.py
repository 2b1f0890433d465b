"""Runs on processes of this machine, by joblib."""

from collections.abc import Callable, Iterator, Sequence

from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError


def run(calls: Sequence[Callable[[], None]], workers: int, cluster: str | None) -> Iterator[None]:
    """Make the calls on so many processes, with one thread each.

    When a process dies joblib ends them all; their runs are free again, and the caller gives them out once more.
    It knows no cluster but this machine.

    Yields:
        nothing, for each call that has ended.
    """
    with parallel_config("loky", inner_max_num_threads=1):
        pool = Parallel(workers, return_as="generator_unordered", batch_size=1, pre_dispatch=workers)
        try:
            yield from pool(delayed(call)() for call in calls)
        except TerminatedWorkerError:
            return
