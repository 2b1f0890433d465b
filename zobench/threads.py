"""Work that threads share: each takes what is left, and blocks are drawn and applied while they are in cache."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any

import torch

Take = Callable[[], None]
"""Does what no other thread has taken yet, until nothing is left."""


def in_parallel(take: Take, parts: int, device: torch.device) -> None:
    """Call take() on as many threads as torch uses, at most one a part; on one, if another device does the work."""
    threads = min(torch.get_num_threads(), parts) if device.type == "cpu" else 1
    if threads < 2:
        take()
        return
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def share() -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            take()

    workers: list[Future[None]] = []  # on workers alone: here torch would have to stop and start its own threads
    try:
        workers.extend(pool(threads).submit(share) for _ in range(threads))
    finally:
        try:
            wait(workers)
        finally:
            wait(workers)  # the interrupt may have come before the waiting
    for worker in workers:
        worker.result()


def wait(others: Sequence[Future[Any]], release: Callable[[], None] = lambda: None) -> None:
    """Return when all have ended, who may wait for `release`; an interrupt is raised only then, so that nobody goes on
    writing behind the caller.
    """
    interrupt: BaseException | None = None
    for other in others:
        while not other.done():
            try:
                release()
                other.exception()
            except BaseException as error:  # this thread's, not the other's
                interrupt = error
    if interrupt is not None:
        raise interrupt


@cache
def pool(threads: int, name: str = "zobench-blocks", each: int | None = 1) -> ThreadPoolExecutor:
    """Return workers with `each` torch threads, if that is given; they are kept for the life of the process."""
    return ThreadPoolExecutor(threads, name, initializer=lambda: torch.set_num_threads(each) if each else None)


@cache
def survive_forks() -> None:
    """Let processes that are forked from now on go on with one thread, as workers of torch's DataLoader do: they have
    the pools here and those of torch, but none of their threads, and would wait for them for ever.
    """
    if hasattr(os, "register_at_fork"):  # not on Windows
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    pool.cache_clear()
    torch.set_num_threads(1)
