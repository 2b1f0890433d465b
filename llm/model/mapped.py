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

from llm.model import pages
from llm.quantised.folder import KINDS
from zobench.space.slots import Slots


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
        pages.in_large_pages(self._pages)
        self._whole = torch.frombuffer(self._pages, dtype=torch.uint8)
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
        """Read the file, and return when it is in memory."""
        pages.read_in(self._whole, self._descriptor)

    def leave(self) -> None:
        """Take the pages out of this process, and begin to write what changed to disk."""
        pages.unmap(self._whole)
        self.write()

    def write(self) -> None:
        """Begin to write what changed to disk."""
        pages.begin_to_write(self._descriptor)

    def sync(self) -> None:
        """Write what changed to disk, and wait until the disk says that it is there."""
        os.fsync(self._descriptor)

    def drop(self) -> None:
        """Take the pages out of this process, write what changed, wait for it, and leave nothing in the page cache: the
        next read is one of the disk.
        """
        pages.unmap(self._whole)
        pages.drop(self._descriptor)

    def copy_over(self, size: int = 1 << 23) -> None:
        """Read all bytes and write them again where they were, and wait until they are on disk."""
        buffer = memoryview(bytearray(size))
        for start in range(0, self.size, size):
            count = os.preadv(self._descriptor, [buffer[: min(size, self.size - start)]], start)
            os.pwrite(self._descriptor, buffer[:count], start)
        self.sync()


class MappedBlocks:
    """The files of the blocks of a model, by their numbers, as a streamed engine fetches and releases them; `rest` is
    the file of what is in no block. With `evict` the page cache keeps no block: the files are larger than the memory
    that is free. Without, the system drops pages when it needs the memory: to map them again takes time.
    `slots` are those of another device, on which the blocks are computed; what is in no block is then there alone.
    """

    def __init__(self, files: Mapping[int, MappedFile], rest: MappedFile | None, evict: bool) -> None:
        self.files, self.rest, self.evict = files, rest, evict
        self.slots: Slots | None = None
        self._owners = {t.data_ptr(): file for file in self.all for t in file.tensors.values()}
        self._leaving: list[MappedFile] = []

    @property
    def all(self) -> list[MappedFile]:
        """The files of the blocks and of the rest."""
        return [*self.files.values(), *([self.rest] if self.rest else [])]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.all)

    def let_go(self, tensor: Tensor) -> None:
        """Drop the file of a tensor, as after a pass over all tensors that asks for no layer."""
        file = self._owners.get(tensor.data_ptr())
        if self.evict and file is not None:
            file.drop()

    def fetch(self, block: int) -> None:
        """Read a block, and with the first what is in none, when those that were released are gone."""
        self._drop_released()
        if block == 0 and self.rest is not None:
            self.rest.fetch()
        if block in self.files:  # a layer whose parameters all belong to an earlier one has none
            self.files[block].fetch()

    def release(self, block: int) -> None:
        """Begin to write a block, and with the first what is in none, which was written before it."""
        if not self.evict:
            return
        self._drop_released()
        if block in self.files:
            self.files[block].leave()
            self._leaving.append(self.files[block])
        if block == 0 and self.rest is not None:
            self.rest.write()

    def _drop_released(self) -> None:
        while self._leaving:
            self._leaving.pop().drop()


_mapped: "WeakKeyDictionary[nn.Module, MappedBlocks]" = WeakKeyDictionary()


def remember(model: nn.Module, blocks: MappedBlocks) -> None:
    """Note the files of a model whose parameters are mapped."""
    _mapped[model] = blocks


def blocks_of(model: nn.Module) -> MappedBlocks | None:
    """Return the mapped files of a model; None for one that is in memory."""
    return _mapped.get(model)
