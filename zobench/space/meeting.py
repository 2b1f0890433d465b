"""Two threads that read the same parameters in the same order, so that each direction is drawn once for both."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from zobench.threads import pool, wait

Result = TypeVar("Result")


class OtherPointError(RuntimeError):
    """The other thread failed while both were filling a parameter; its own error says why."""


class Job(Protocol):
    """Work that threads share."""

    def take(self) -> None:
        """Do what no other thread has taken."""


class Read(NamedTuple):
    """What a thread reads: a parameter, or only its rows `wanted`."""

    name: str
    wanted: Tensor | None

    def like(self, other: "Read") -> bool:
        """Whether both read the same."""
        if self.wanted is None or other.wanted is None:
            return self.name == other.name and self.wanted is other.wanted
        return self.name == other.name and torch.equal(self.wanted, other.wanted)


class Work(NamedTuple):
    """A job, the two targets that it fills, and what is to be done once when both are whole."""

    job: Job
    targets: list[Tensor]
    finish: Callable[[], None]


@dataclass(eq=False)
class Entry:
    """A read that both threads come to; who comes first begins the work, and it is forgotten when both have read."""

    read: Read
    work: Work | None
    active: int = 0
    come: int = 0
    finished: bool = False
    failed: bool = False


class Meeting:
    """Where two threads that read the same things in the same order share the work of each.

    The first to come begins at once, for both, and may be one read ahead: it works instead of waiting.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._left = False
        self._entries: list[Entry] = []
        self._reads, self._gone = [0, 0], [False, False]

    def over(self, index: int, read: Read, make: Callable[[], Work], take: Callable[[Job], None]) -> Tensor | None:
        """Return the target of thread `index`, filled by take(job) in whoever is here.

        None if the other thread reads something else or has left: then each goes on alone, here and from now on.

        Raises:
            OtherPointError: the other thread failed while it filled this.
        """
        entry = self._join(index, read, make)
        if entry is None or entry.work is None:
            return None
        work = entry.work
        try:
            take(work.job)  # outside the lock: both threads draw blocks of one job at the same time
        except BaseException:
            with self._changed:
                entry.failed = self._left = True
                self._changed.notify_all()
            raise
        with self._changed:
            entry.active -= 1
            self._changed.notify_all()
            # A thread that is gone never decrements `active`: without the last condition this would wait for ever.
            self._changed.wait_for(lambda: not entry.active or entry.failed or self._gone[1 - index])
            if entry.failed or entry.active:
                raise OtherPointError("the other point of the pair failed")
            if not entry.finished:  # under the lock: the pending step is marked as written once
                work.finish()
                entry.finished = True
            if entry.come == 2:
                entry.work = None  # the targets' memory is free once they were read
        return work.targets[index]

    def _join(self, index: int, read: Read, make: Callable[[], Work]) -> Entry | None:
        with self._changed:
            number = self._reads[index]
            if number == len(self._entries):
                # at most one read ahead of the other thread: this bounds the targets in memory
                self._changed.wait_for(lambda: self._reads[1 - index] >= number or self._left)
            if number == len(self._entries) and not self._left:
                self._entries.append(Entry(read, make()))
            if number == len(self._entries) or not self._entries[number].read.like(read):
                self._leave()
                return None
            entry = self._entries[number]
            self._reads[index] += 1
            entry.active += 1
            entry.come += 1
            self._changed.notify_all()
            return entry

    def leave(self, index: int) -> None:
        """Say that thread `index` has ended: the other goes on alone where this one has not been."""
        with self._changed:
            self._gone[index] = True
            self._leave()

    def wait_for(self, index: int, name: str) -> None:
        """Wait until the other thread does not fill a parameter any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._gone[1 - index] or not any(e.active for e in self._named(name)))

    def _named(self, name: str) -> list[Entry]:
        return [entry for entry in self._entries if entry.read.name == name]

    def _leave(self) -> None:
        self._left = True
        self._changed.notify_all()


def in_two_threads(work: Callable[[int], Result], release: Callable[[], None]) -> list[Result]:
    """Return [work(0), work(1)], each in a thread of its own with half of torch's threads, under the same autocast.

    Whatever is raised or interrupts, both have ended when this does: `release` lets the second one go on alone.
    """
    threads = torch.get_num_threads()
    half = max(1, threads // 2)
    others: list[Future[Result]] = []
    try:
        others.append(pool(1, "zobench-second-point", None).submit(_like_here(half, work), 1))
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
    on_gpu = torch.cuda.is_initialized()
    kinds = ("cpu", "cuda") if on_gpu else ("cpu",)
    casts = [(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)) for kind in kinds]
    inference = torch.is_inference_mode_enabled()
    # Both threads fill targets that either reads: on one stream the device does the work in the order of the host.
    stream = torch.cuda.current_stream() if on_gpu else None

    def there(index: int) -> Result:
        torch.set_num_threads(threads)
        with ExitStack() as modes:
            modes.enter_context(torch.inference_mode(inference))
            for cast in casts:
                modes.enter_context(torch.autocast(*cast))
            if stream is not None:
                modes.enter_context(torch.cuda.stream(stream))
            return work(index)

    return there
