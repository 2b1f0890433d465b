"""Two threads that read the same parameters in the same order, so that each direction is drawn once for both."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from zobench.space.threads import wait

Result = TypeVar("Result")


class OtherPointError(RuntimeError):
    """The other thread failed while both were filling a parameter; its own error says why."""


class Job(Protocol):
    """Work that threads share."""

    def take(self) -> None:
        """Do what no other thread has taken."""


Make = Callable[[list[Tensor]], Job]


class Brought(NamedTuple):
    """What a thread wants filled: a parameter, or only its rows `wanted`."""

    name: str
    target: Tensor
    wanted: Tensor | None

    def like(self, other: "Brought") -> bool:
        """Whether one job can fill both."""
        if self.wanted is None or other.wanted is None:
            return self.name == other.name and self.wanted is other.wanted
        return self.name == other.name and torch.equal(self.wanted, other.wanted)


class Meeting:
    """Where two threads wait for each other, parameter by parameter."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._round, self._waiting, self._left = 0, 0, False
        self._brought: dict[int, Brought] = {}
        self._job: Job | None = None  # what both do, made by the later of them

    @contextmanager
    def over(self, index: int, mine: Brought, make: Make) -> Iterator[Job | None]:
        """Give make(both threads' targets) to both, to be done together; at the end both targets are whole.

        None if the other thread reads something else or has left: then each goes on alone, here and from now on.
        """
        self._brought[index] = mine
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
        first, second = self._brought[0], self._brought[1]
        return make([first.target, second.target]) if first.like(second) else None


def in_two_threads(work: Callable[[int], Result], release: Callable[[], None]) -> list[Result]:
    """Return [work(0), work(1)], each in a thread of its own with half of torch's threads, under the same autocast.

    Whatever is raised or interrupts, both have ended when this does: `release` lets the second one go on alone.
    """
    threads = torch.get_num_threads()
    half = max(1, threads // 2)
    others: list[Future[Result]] = []
    try:
        others.append(_worker().submit(_like_here(half, work), 1))
        torch.set_num_threads(half)
        mine = work(0)
    except OtherPointError:
        others[0].result()  # raises what happened there
        raise
    finally:
        try:
            wait(others, release)
        finally:
            wait(others, release)  # the interrupt may have come before the waiting
            torch.set_num_threads(threads)
    return [mine, others[0].result()]


def _like_here(threads: int, work: Callable[[int], Result]) -> Callable[[int], Result]:
    """The work, in the modes of torch that hold for the calling thread alone."""
    inference, enabled, dtype = (
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
    )

    def there(index: int) -> Result:
        torch.set_num_threads(threads)
        with torch.inference_mode(inference), torch.autocast("cpu", dtype, enabled):
            return work(index)

    return there


@cache
def _worker() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "zobench-second-point")
