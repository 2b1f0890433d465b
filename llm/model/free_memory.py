"""The memory that is free on a device."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import torch

GROUPS = Path("/sys/fs/cgroup")


def free_memory(device: str) -> int | None:
    """Return the free bytes of a device, None if they are unknown; on a CPU the memory that Linux calls available,
    within the limits of the control groups of the process.
    """
    try:
        if torch.device(device).type == "cuda":
            return torch.cuda.mem_get_info(device)[0]
    except (RuntimeError, AssertionError):  # there is no such device, which loading says in words
        return None
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None
    return min([free, *_left()])


def give_back() -> None:
    """Let the C library give memory that was freed back to the system. glibc keeps what lies between other blocks, and
    does not fit aligned tensors into it again, so that a loop over layers would come to hold them all.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def _left() -> Iterator[int]:
    """The bytes that each control group leaves; what the page cache holds in one is free."""
    for group, names in groups():
        try:
            limit, used = (int((group / name).read_text()) for name in names)
            stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            yield limit - used + int(stat.get("file", stat.get("total_cache", "0")))
        except (OSError, ValueError):  # no limit ("max"), or another system
            continue


def groups() -> Iterator[tuple[Path, tuple[str, str]]]:
    """Give the control groups of this process, each with the names of its files for the limit and for what it uses."""
    second, first = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")
    yield GROUPS, second  # in a container the root is its own group
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, place = line.split(":", 2)
        if not kinds:
            yield GROUPS / place.lstrip("/"), second
        elif "memory" in kinds.split(","):
            yield GROUPS / "memory" / place.lstrip("/"), first
