"""Memory for perturbed parameters, used again as soon as nobody holds what was in it."""

from operator import le
from sys import getrefcount
from typing import Any

import torch
from torch import Tensor

from zobench.layout import CPU

_use_count: Any = getattr(torch._C, "_storage_Use_Count", None)


class Scratch:
    """Hands out tensors. Fresh memory for each costs as much as drawing what is put there, and leaves the caches."""

    def __init__(self) -> None:
        self._buffers: list[Tensor] = []

    def like(self, parameter: Tensor, dtype: torch.dtype) -> Tensor:
        """Return a tensor of the parameter's shape and device; its entries are what happens to be there."""
        free = [buffer for buffer in self._buffers if buffer.dtype == dtype and _is_free(buffer)]
        for buffer in free:
            if buffer.numel() >= parameter.numel() and buffer.device == parameter.device:
                return buffer[: parameter.numel()].view(parameter.shape)
        self._buffers = [buffer for buffer in self._buffers if not any(buffer is other for other in free)]
        free.clear()  # what was too small gives way
        self._buffers.append(torch.empty(parameter.numel(), dtype=dtype, device=parameter.device))
        return self._buffers[-1].view(parameter.shape)


def _is_free(buffer: Tensor) -> bool:
    """Whether no view of the buffer and no handle of its storage is left; where torch does not tell, it is not free."""
    return _use_count is not None and all(map(le, _uses(buffer), UNHELD))


def _uses(buffer: Tensor) -> tuple[int, int]:
    """How many tensors hold the memory, and how many names the storage."""
    storage = buffer.untyped_storage()
    return _use_count(storage._cdata) if _use_count else 0, getrefcount(storage)


UNHELD = _uses(torch.empty(1, dtype=torch.float32, device=CPU))
