"""A folder locked against a second process that would write to it."""

import os
import warnings
from pathlib import Path
from weakref import WeakValueDictionary, finalize

NAME = ".lock"


class FolderInUseError(OSError):
    """Another process writes to the folder."""


class FolderLock:
    """A lock that is held until it is released or collected, or until the process ends: the kernel holds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(folder / NAME, flags, 0o644)
        self._finalizer = finalize(self, os.close, self._descriptor)
        try:
            self._take()
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Release the lock, so that other processes may write; the second call does nothing."""
        self._finalizer()

    @property
    def held(self) -> bool:
        """Whether nobody released it."""
        return self._finalizer.alive

    def _take(self) -> None:
        import fcntl  # not on every platform

        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise FolderInUseError(
                f"{self.folder} is being written by another process ({owner}): wait for it, or give another --out"
            ) from None
        except OSError as error:  # a network file system without locks
            warnings.warn(
                f"{self.folder} cannot be locked ({error}): make sure that no other process writes there", stacklevel=4
            )
            return
        # The number is for messages only. The file is never removed: a second process could lock a new file beside it.
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)


# flock belongs to a descriptor: a second one of the same process would be refused, so its holders share a lock.
_held: WeakValueDictionary[Path, FolderLock] = WeakValueDictionary()


def lock(folder: str | Path) -> FolderLock:
    """Return the lock of an existing folder; all holders of one process share it.

    Raises:
        FolderInUseError: another process holds it.
    """
    path = Path(folder).resolve()
    held = _held.get(path)
    if held is None or not held.held:
        held = FolderLock(path)
        _held[path] = held
    return held
