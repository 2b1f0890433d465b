"""Two threads that read the same parameters in the same order, so that each direction is drawn once for both."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import Protocol, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class OtherPointError(RuntimeError):
    """The other thread failed while both were filling a parameter; its own error says why."""


class Job(Protocol):
    """Work that threads share."""

    def take(self) -> None:
        """Do what no other thread has taken."""


Make = Callable[[list[Tensor]], Job]


class Meeting:
    """Where two threads wait for each other, parameter by parameter."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._round, self._waiting, self._left = 0, 0, False
        self._brought: dict[int, tuple[str, Tensor]] = {}
        self._job: Job | None = None  # what both do, made by the later of them

    @contextmanager
    def over(self, index: int, name: str, mine: Tensor, make: Make) -> Iterator[Job | None]:
        """Give make(both threads' targets) to both, to be done together; at the end both targets are whole.

        None if the other thread reads something else or has left: then each goes on alone, here and from now on.
        """
        self._brought[index] = (name, mine)
        job = self._job if self._both_here(make) else None
        if job is None:
            self.leave()
            yield None
            return
        try:
            yield job
        except BaseException:
            self.leave()
            raise
        if not self._both_here():
            raise OtherPointError("the other point of the pair failed")

    def leave(self) -> None:
        """Let the other thread go on alone, now and at any later meeting."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def _both_here(self, make: Make | None = None) -> bool:
        """Wait for the other thread; False if it has left."""
        with self._changed:
            if self._left:
                return False
            now = self._round
            self._waiting += 1
            if self._waiting == 2:
                if make is not None:
                    self._job = self._made(make)
                self._round, self._waiting = now + 1, 0
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._round > now or self._left)
            return self._round > now

    def _made(self, make: Make) -> Job | None:
        brought = [self._brought[index] for index in sorted(self._brought)]
        alike = len({(name, target.shape) for name, target in brought}) == 1
        return make([target for _, target in brought]) if alike else None


def in_two_threads(work: Callable[[int], Result]) -> list[Result]:
    """Return [work(0), work(1)], each in a thread of its own with half of torch's threads."""
    threads = torch.get_num_threads()
    half = max(1, threads // 2)
    other = _worker().submit(_with, half, work, 1)
    try:
        mine = _with(half, work, 0)
    except OtherPointError:
        other.result()  # raises what happened there
        raise
    finally:
        other.exception()  # waits
        torch.set_num_threads(threads)
    return [mine, other.result()]


def _with(threads: int, work: Callable[[int], Result], index: int) -> Result:
    torch.set_num_threads(threads)
    return work(index)


@cache
def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "zobench-second-point")
