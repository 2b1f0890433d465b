"""Copies between host memory and a device beside what the device computes: streams, events, pinned memory."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zobench.layout import CPU

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Targets, each with its source of the same shape and dtype."""


Mark = Any
"""A point in the work of a device, such as an event of CUDA: `synchronize()` returns when the device has reached it."""


class _Reached:
    def synchronize(self) -> None:
        """Return: a CPU has done what it was asked to."""


class Copies:
    """Copies on a CPU: all work is done when a call returns. On CUDA, `CudaCopies`; any thread may call."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def staging(self, size: int) -> Tensor:
        """Return host memory of so many bytes, to and from which copies run beside other work."""
        return torch.empty(size, dtype=torch.uint8, device=CPU)

    def mark(self) -> Mark:
        """Return the end of what this thread has asked the device to compute so far."""
        return _Reached()

    def begin(self, pairs: Pairs, after: Sequence[Mark]) -> Mark:
        """Begin to copy when these marks are reached, and return the end of the copies."""
        for target, source in pairs:
            target.copy_(source)
        return _Reached()

    def hold(self, mark: Mark) -> None:
        """Let what this thread asks the device to compute from now on begin after a mark."""


class CudaCopies(Copies):
    """Copies on a stream of their own. No GPU has run this yet."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._stream = torch.cuda.Stream(device)

    def staging(self, size: int) -> Tensor:
        """Return pinned memory: a copy from other host memory would wait for the device."""
        return torch.empty(size, dtype=torch.uint8, device=CPU, pin_memory=True)

    def mark(self) -> Mark:
        """Record an event on the stream that is current in this thread."""
        return torch.cuda.current_stream(self.device).record_event()

    def begin(self, pairs: Pairs, after: Sequence[Mark]) -> Mark:
        """Copy on the stream of copies, which waits for these events; the host does not."""
        for mark in after:
            self._stream.wait_event(mark)
        with torch.cuda.stream(self._stream):
            for target, source in pairs:
                target.copy_(source, non_blocking=True)
        return self._stream.record_event()

    def hold(self, mark: Mark) -> None:
        """Let the stream that is current in this thread wait for an event."""
        torch.cuda.current_stream(self.device).wait_event(mark)


def copies_for(device: torch.device) -> Copies:
    """Return what copies to and from a device."""
    return CudaCopies(device) if device.type == "cuda" else Copies(device)
