"""Weights in memory-mapped safetensors files: a file a block, read and written in place, gone with the process."""

import json
import mmap
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from llm.quantised.folder import KINDS


class MappedFile:
    """The tensors of a new safetensors file, which share its pages: to write to one is to write to the file.

    The file loses its name as soon as it is mapped, so that the system takes its disk space back when the process
    ends, whatever ends it.

    Raises:
        OSError: no space, or the like.
    """

    def __init__(self, file: Path, tensors: Mapping[str, Tensor]) -> None:
        try:
            save_file(dict(tensors), file)
            self._descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
            finalize(self, os.close, self._descriptor)  # the disk has the space back when nobody holds a tensor of it
            self._pages = mmap.mmap(self._descriptor, 0, mmap.MAP_SHARED)
        except Exception as error:  # safetensors has an error of its own for everything
            raise OSError(f"{file}: the working copy of the weights could not be written: {error}") from error
        finally:
            file.unlink(missing_ok=True)
        self.tensors = {name: self._tensor(*about) for name, about in self._index().items()}

    def _index(self) -> dict[str, tuple[str, list[int], int]]:
        """Dtype, shape and place of every tensor, by the header of the file."""
        size = int.from_bytes(self._pages[:8], "little")
        header: dict[str, Any] = json.loads(self._pages[8 : 8 + size])
        header.pop("__metadata__", None)
        return {name: (it["dtype"], it["shape"], 8 + size + it["data_offsets"][0]) for name, it in header.items()}

    def _tensor(self, dtype: str, shape: list[int], offset: int) -> Tensor:
        # Each has a storage of its own size, as readers of checkpoints copy what is part of a larger one.
        count = torch.Size(shape).numel()
        return torch.frombuffer(self._pages, dtype=KINDS[dtype], count=count, offset=offset).view(shape)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self._pages)

    def fetch(self) -> None:
        """Begin to read the file into the page cache."""
        if hasattr(os, "posix_fadvise"):  # not on macOS
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_WILLNEED)

    def release(self, evict: bool) -> None:
        """With `evict` take the pages out of this process, begin to write what changed to disk, and drop from the page
        cache what is there. Without, the system does so when it needs the memory: to map them again takes time.
        """
        if not evict:
            return
        if hasattr(mmap, "MADV_DONTNEED"):  # of a shared mapping of a file nothing is lost by it
            self._pages.madvise(mmap.MADV_DONTNEED)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def drop(self) -> None:
        """Write what changed to disk, wait for it, and leave nothing in memory: the next read is one of the disk."""
        self._pages.flush()
        os.fsync(self._descriptor)
        self.release(evict=True)

    def copy_over(self, size: int = 1 << 23) -> None:
        """Read all bytes and write them again where they were, and wait until they are on disk."""
        buffer = memoryview(bytearray(size))
        for start in range(0, self.size, size):
            count = os.preadv(self._descriptor, [buffer[: min(size, self.size - start)]], start)
            os.pwrite(self._descriptor, buffer[:count], start)
        os.fsync(self._descriptor)


class MappedBlocks:
    """The files of the blocks of a model, by their numbers, as a streamed engine fetches and releases them; `rest` is
    the file of what is in no block. With `evict` the page cache keeps no block: the files are larger than the memory
    that is free.
    """

    def __init__(self, files: Mapping[int, MappedFile], rest: MappedFile | None, evict: bool) -> None:
        self.files, self.rest, self.evict = files, rest, evict
        self._owners = {t.data_ptr(): file for file in self.all for t in file.tensors.values()}

    @property
    def all(self) -> list[MappedFile]:
        """The files of the blocks and of the rest."""
        return [*self.files.values(), *([self.rest] if self.rest else [])]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.all)

    def let_go(self, tensor: Tensor) -> None:
        """Release the file of a tensor, as after a pass over all tensors that asks for no layer."""
        file = self._owners.get(tensor.data_ptr())
        if file is not None:
            file.release(self.evict)

    def fetch(self, block: int) -> None:
        """Begin to read a block."""
        file = self.rest if block < 0 else self.files.get(block)
        if file is not None:  # a layer whose parameters all belong to an earlier one has none
            file.fetch()

    def release(self, block: int) -> None:
        """Let a block go."""
        if block in self.files:
            self.files[block].release(self.evict)


_mapped: "WeakKeyDictionary[nn.Module, MappedBlocks]" = WeakKeyDictionary()


def remember(model: nn.Module, blocks: MappedBlocks) -> None:
    """Note the files of a model whose parameters are mapped."""
    _mapped[model] = blocks


def blocks_of(model: nn.Module) -> MappedBlocks | None:
    """Return the mapped files of a model; None for one that is in memory."""
    return _mapped.get(model)
