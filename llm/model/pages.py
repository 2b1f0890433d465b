"""Pages of mapped files, as Linux reads, writes and drops them; where it takes no such advice, nothing happens.

The calls go through the C library, which lets other threads of Python run meanwhile: `mmap.madvise` does not.
"""

import ctypes
import mmap
import os
from functools import cache
from typing import Any

from torch import Tensor

POPULATE_READ = 22  # of Linux 5.14 and later; Python has no name for it
_WAIT_BEFORE, _WRITE, _WAIT_AFTER = 1, 2, 4


def in_large_pages(pages: mmap.mmap) -> None:
    """Ask for pages of 2 MiB. A step writes to every page, and the first write to each is a fault: with pages of 4 KiB
    the faults of a layer take longer than its arithmetic.
    """
    if hasattr(mmap, "MADV_HUGEPAGE"):
        try:
            pages.madvise(mmap.MADV_HUGEPAGE)
        except OSError:  # a kernel without them
            return


def read_in(whole: Tensor, descriptor: int) -> None:
    """Read a mapped file, and return when it is in memory and mapped."""
    # The advice WILLNEED reads no more than `read_ahead_kb` of the disk, in pages of 4 KiB.
    if not _advise(whole, POPULATE_READ) and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)


def unmap(whole: Tensor) -> None:
    """Take the pages out of this process: of a shared mapping of a file nothing is lost by it."""
    if hasattr(mmap, "MADV_DONTNEED"):
        _advise(whole, mmap.MADV_DONTNEED)


def begin_to_write(descriptor: int) -> None:
    """Begin to write to disk what changed in a file."""
    _sync(descriptor, _WRITE)


def drop(descriptor: int) -> None:
    """Wait until what changed in a file is written, and drop its pages from the page cache."""
    _sync(descriptor, _WAIT_BEFORE | _WRITE | _WAIT_AFTER)
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)


def _advise(whole: Tensor, advice: int) -> bool:
    advise = getattr(_library(), "madvise", None)
    if advise is None or os.name != "posix":
        return False
    result: int = advise(ctypes.c_void_p(whole.data_ptr()), ctypes.c_size_t(whole.nbytes), advice)
    return result == 0


def _sync(descriptor: int, flags: int) -> None:
    sync = getattr(_library(), "sync_file_range", None)
    if sync is not None:
        sync(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(flags))


@cache
def _library() -> Any:
    return ctypes.CDLL(None) if os.name == "posix" else None
