"""Forked processes as torchrun starts them, which need not import torch again."""

import os
import pickle
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class Ended(NamedTuple):
    """How a process ended: what it returned, or the name and the text of its error; None where a signal ended it."""

    value: Any = None
    error: str = ""


def together(world: int, work: Callable[[int], Any], folder: Path, seconds: float = 300.0) -> list[Ended]:
    """Return what work(rank) gives in each of `world` processes; those that still run after `seconds` are killed."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    where = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [_forked(rank, work, where, folder / f"{rank}.pickle") for rank in range(world)]
    ended, left = time.monotonic() + seconds, set(processes)
    while left and time.monotonic() < ended:
        left -= {process for process in left if os.waitpid(process, os.WNOHANG)[0]}
        time.sleep(0.01)
    for process in left:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    assert not left, f"{len(left)} of {world} processes still ran after {seconds} s"
    files = [folder / f"{rank}.pickle" for rank in range(world)]
    return [pickle.loads(file.read_bytes()) if file.exists() else Ended() for file in files]


def _forked(rank: int, work: Callable[[int], Any], where: dict[str, str], file: Path) -> int:
    process = os.fork()
    if process:
        return process
    try:
        os.environ.update(where, RANK=str(rank), LOCAL_RANK=str(rank))
        result = Ended(_done(work, rank))
    except BaseException as error:
        traceback.print_exc()
        result = Ended(None, f"{type(error).__name__}: {error}")
    sys.stdout.flush()
    file.with_suffix(".part").write_bytes(pickle.dumps(result))
    os.replace(file.with_suffix(".part"), file)
    os._exit(0)  # neither pytest nor its buffers go on here


def _done(work: Callable[[int], Any], rank: int) -> Any:
    import torch

    torch.set_num_threads(1)
    return work(rank)
