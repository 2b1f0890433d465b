"""The memory of this process without what the C library keeps for later: a peak is then that of what is taken."""

import ctypes
import sys


def trim() -> None:
    """Give freed memory back; earlier tests of the process may leave a gigabyte of it, in which a peak would vanish."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
