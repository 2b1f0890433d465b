"""Memory that operations of torch hold, counted storage by storage: the same on every device, and on none (meta)."""

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Bytes of the storages that operations within the block make: `live` now, `peak` at most.

    What was there before is not counted, nor what kernels take and give back inside, nor what other threads make. A
    storage that outlives the block is counted until it dies.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = {_address(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        out = func(*args, **kwargs)
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and _address(tensor) not in given:
                self._see(tensor.untyped_storage())
        return out

    def _see(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()
        if address in self._known:
            return
        self._known[address] = weakref.finalize(storage, self._forget, address, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _forget(self, address: int, size: int) -> None:
        del self._known[address]
        self.live -= size


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def size_of(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of tensors, those that share memory once."""
    storages = {_address(t): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def held(model: nn.Module) -> int:
    """Return the bytes of a model's parameters and buffers."""
    return size_of([*model.parameters(), *model.buffers()])
