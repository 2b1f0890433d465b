"""Writing files so that a crash or a full disk leaves the old content or the new content, never a part of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of the data; a signal or a nearly full disk may take it in parts."""
    while data:
        data = data[os.write(descriptor, data) :]


def sync(path: Path) -> None:
    """Force the bytes of a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_all(folder: Path) -> None:
    """Force a folder and everything in it to disk, before it or its files get their final names."""
    for path in (*folder.rglob("*"), folder):
        sync(path)


def create_synced(file: Path, data: bytes) -> None:
    """Make a file with these bytes, or leave the old one: written under another name, forced to disk, renamed."""
    aside = file.with_name(file.name + ".part")
    with suppress(FileNotFoundError):
        aside.unlink()
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with truncate_back(descriptor, 0, file):
            write_all(descriptor, data)
            os.fsync(descriptor)
    except BaseException:
        aside.unlink()
        raise
    finally:
        os.close(descriptor)
    os.replace(aside, file)  # after fsync: else a power cut could leave the new name with an empty file
    sync(file.parent)


@contextmanager
def truncate_back(descriptor: int, size: int, file: Path) -> Iterator[None]:
    """Cut the file back to `size` bytes if a write within the context fails.

    Raises:
        OSError: with the file and the way out in its message.
    """
    try:
        yield
    except OSError as error:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        reason = f"{file}: {error.strerror}: what was written before is kept; make room and give the same command again"
        raise OSError(reason) from error
    except BaseException:
        with suppress(OSError):
            os.ftruncate(descriptor, size)
        raise
