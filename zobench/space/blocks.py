"""Blocks in parallel: each is drawn and applied by one thread while it is in that thread's cache."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import torch

from zobench.layout import Block

Work = Callable[[Block], None]


def for_each(blocks: Sequence[Block], work: Work) -> None:
    """Call work(block) for every block, on as many threads as torch uses; blocks must not share what they write.

    The numbers of a block depend on its key alone, so order and number of threads do not change the result.
    """
    threads = min(torch.get_num_threads(), len(blocks))
    if threads < 2 or any(block.segment.device.type != "cpu" for block in blocks):
        for block in blocks:
            work(block)
        return
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def share(first: int) -> None:
        with torch.inference_mode(inference), torch.set_grad_enabled(grad):
            for block in blocks[first::threads]:
                work(block)

    waiting = [_pool(threads - 1).submit(share, first) for first in range(1, threads)]
    try:
        _alone(partial(share, 0))
    finally:
        for future in waiting:
            future.result()


def _alone(work: Callable[[], None]) -> None:
    """Call work() with one torch thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work()
    finally:
        torch.set_num_threads(threads)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Workers of one torch thread each, kept for the life of the process."""
    return ThreadPoolExecutor(threads, "zobench-blocks", initializer=lambda: torch.set_num_threads(1))
