"""Slots: the layers of a model in host memory, of which a few at a time are in buffers of a device."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from zobench.space.copies import Copies, Mark, copies_for
from zobench.threads import pool

KEPT = 3
"""Layers in memory: the one that is read, the one before it, which the second point may still read, and the next."""
ALIGNED = 256
"""Bytes at a multiple of which a tensor begins, as torch's own allocations on a GPU do."""


def fetcher() -> ThreadPoolExecutor:
    """Return the thread that fetches and releases layers, one after the other; it computes nothing."""
    return pool(1, "zobench-fetch", None)


class Residence(Protocol):
    """How the blocks of a model come into memory and leave it. Both calls are advice: no value depends on them. One
    thread makes them, which computes nothing, so that they may wait.
    """

    def fetch(self, block: int) -> None:
        """Bring a block into memory."""

    def release(self, block: int) -> None:
        """Let a block, with what was written to it, go back to where it is kept."""


class Slots:
    """The layers of a module, computed on a device that has room for `KEPT` of them.

    A forward that enters a layer finds its parameters and buffers in a slot, a buffer on the device, and a thread
    copies the next layer into another one meanwhile. A layer that everyone has left goes back: its trainable tensors
    are copied to the host if the engine wrote to them. Outside of forwards, and when `look` or `inside` has ended, the
    module has all its layers on the host. What more than one layer holds, or none, is on the device from now on.

    Holds on the device `KEPT` times the bytes of the largest layer, and as much pinned host memory.

    Args:
        module: the module.
        layers: its layers, in the order in which a forward enters them; they are distinct.
        device: where it computes.
        home: what brings the host's tensors of a layer into memory, and lets them go; None where they are there.
        copies: what copies; by default what `copies_for` gives for the device.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[nn.Module],
        device: torch.device,
        home: Residence | None = None,
        copies: Copies | None = None,
    ) -> None:
        self.device = torch.empty(0, dtype=torch.uint8, device=device).device  # with its number
        self._home, self._copies = home, copies or copies_for(self.device)
        self._layers = [_placed(tensors) for tensors in _to_device(module, layers, self.device)]
        size = max(_size(layer) for layer in self._layers)
        self._slots = [self._slot(size) for _ in range(min(KEPT, len(layers)))]
        self._changed = threading.Condition(threading.RLock())
        self._readers = 0  # outside of `look`
        self._writes: Callable[[int], bool] = lambda k: False
        self._jobs: list[Future[Any]] = []
        for k, layer in enumerate(layers):
            layer.register_forward_pre_hook(partial(self._enter, k))
            layer.register_forward_hook(partial(self._leave, k), always_call=True)

    @property
    def size(self) -> int:
        """Bytes of all slots, which the device holds, and once more pinned memory of the host."""
        return sum(slot.there.numel() for slot in self._slots)

    @contextmanager
    def look(self, readers: int = 1, writes: Callable[[int], bool] = lambda k: False) -> Iterator[None]:
        """The context in which so many forwards at once pass through the layers, and write to layer k if `writes(k)` is
        true when one of them enters it. At its end all layers are on the host.
        """
        before = self._readers, self._writes
        self._readers, self._writes = readers, writes
        try:
            with self._changed:
                self._let_go_of_idle()
                self._ahead(0)
            yield
        finally:
            try:
                self._send_back()
            finally:
                self._readers, self._writes = before

    @contextmanager
    def inside(self, k: int) -> Iterator[None]:
        """The context in which layer k is on the device and is written to. Call it in `look`."""
        self._enter(k, changed=True)
        try:
            yield
        finally:
            self._leave(k)

    swept = inside

    def _slot(self, size: int) -> "_Slot":
        there = torch.empty(size, dtype=torch.uint8, device=self.device)
        # The memory may have had another owner, whose work the device has not yet done.
        return _Slot(there, self._copies.staging(size), [self._copies.mark()])

    def _enter(self, k: int, *_: Any, changed: bool = False) -> None:
        with self._changed:
            if not self._readers:  # a forward that ended early has left a copy, which the host may have overtaken
                self._let_go_of_idle(but=k)
            slot = self._with(k) or self._fetch(k, self._emptied())
            slot.users += 1
            slot.changed = slot.changed or changed or self._writes(k)
            self._ahead(k + 1)
            assert slot.coming is not None  # since `_fetch`
            self._copies.hold(slot.coming.result())
            if not slot.entered:
                slot.entered = True
                for part in self._layers[k]:
                    part.tensor.data = part.of(slot.there)

    def _leave(self, k: int, *_: Any) -> None:
        with self._changed:
            slot = self._with(k)
            if slot is None or not slot.users:  # it could not be entered
                return
            slot.users -= 1
            slot.passes += 1
            slot.left.append(self._copies.mark())
            if not slot.users and slot.passes >= self._readers:
                self._let_go(slot)
            self._changed.notify_all()

    def _with(self, k: int) -> "_Slot | None":
        return next((slot for slot in self._slots if slot.block == k), None)

    def _ahead(self, k: int) -> None:
        """Begin to fetch a layer, if there is one and room for it."""
        empty = [slot for slot in self._slots if slot.block is None]
        if k < len(self._layers) and self._with(k) is None and empty:
            self._fetch(k, empty[0])

    def _emptied(self) -> "_Slot":
        """A slot that nobody uses: an empty one, else one that the other forward comes to later, and fetches again."""
        while all(slot.users for slot in self._slots):
            self._changed.wait()
        idle = [slot for slot in self._slots if not slot.users]
        slot = min(idle, key=lambda slot: (slot.block is not None, not slot.passes))
        if slot.block is not None:
            self._let_go(slot)
        return slot

    def _fetch(self, k: int, slot: "_Slot") -> "_Slot":
        slot.block = k
        after, slot.left = slot.left, []
        slot.coming = self._submit(self._copy_in, k, slot, after)
        return slot

    def _let_go(self, slot: "_Slot") -> None:
        """Let the layer of a slot have the host's tensors again; what was written comes there when the job is done."""
        assert slot.block is not None
        k, after = slot.block, list(slot.left)
        for part in self._layers[k]:
            part.tensor.data = part.host
        if slot.changed:
            self._submit(self._copy_back, k, slot, after)
        if self._home is not None:
            self._submit(self._home.release, k)
        slot.block, slot.users, slot.passes, slot.changed, slot.entered = None, 0, 0, False, False

    def _let_go_of_idle(self, but: int | None = None) -> None:
        for slot in self._slots:
            if slot.block not in (None, but) and not slot.users:
                self._let_go(slot)

    def _send_back(self) -> None:
        with self._changed:
            for slot in self._slots:
                if slot.block is not None:
                    self._let_go(slot)
            jobs, self._jobs = self._jobs, []
        for job in jobs:
            job.result()

    # In one thread, one after the other: a layer is written back before it is fetched again.

    def _submit(self, do: Callable[..., Any], *arguments: Any) -> Future[Any]:
        self._jobs = [job for job in self._jobs if not job.done() or job.exception() is not None]
        self._jobs.append(fetcher().submit(do, *arguments))
        return self._jobs[-1]

    def _copy_in(self, k: int, slot: "_Slot", after: Sequence[Mark]) -> Mark:
        if self._home is not None:
            self._home.fetch(k)
        if slot.copied is not None:
            slot.copied.synchronize()  # the copy before may still read the staging memory
        for part in self._layers[k]:
            part.of(slot.staging).copy_(part.host)
        size = _size(self._layers[k])
        slot.copied = self._copies.begin([(slot.there[:size], slot.staging[:size])], after)
        return slot.copied

    def _copy_back(self, k: int, slot: "_Slot", after: Sequence[Mark]) -> None:
        written = [part for part in self._layers[k] if part.tensor.requires_grad]
        slot.copied = self._copies.begin([(part.of(slot.staging), part.of(slot.there)) for part in written], after)
        slot.copied.synchronize()
        for part in written:
            part.host.copy_(part.of(slot.staging))


@dataclass(eq=False)
class _Slot:
    """A buffer of the device, and one of pinned host memory through which layers come and go."""

    there: Tensor
    staging: Tensor
    left: list[Mark] = field(default_factory=list)
    """When the device has done what was asked of the layer that is here, or was."""
    block: int | None = None
    coming: "Future[Mark] | None" = None
    copied: Mark | None = None
    users: int = 0
    passes: int = 0
    changed: bool = False
    entered: bool = False


class _Part(NamedTuple):
    """A tensor of a layer, its numbers on the host, and where it begins in a buffer, in bytes."""

    tensor: Tensor
    host: Tensor
    offset: int

    def of(self, buffer: Tensor) -> Tensor:
        """The tensor's place in a buffer, in its dtype, shape and order."""
        octets = buffer[self.offset : self.offset + self.host.numel() * self.host.element_size()]
        return torch.as_strided(octets.view(self.host.dtype), self.host.shape, self.host.stride())


def _placed(tensors: Sequence[Tensor]) -> list[_Part]:
    parts: list[_Part] = []
    for tensor in tensors:
        parts.append(_Part(tensor, tensor.data, _size(parts)))
    return parts


def _size(parts: Sequence[_Part]) -> int:
    """The bytes of a buffer that holds these."""
    if not parts:
        return 0
    end = parts[-1].offset + parts[-1].host.numel() * parts[-1].host.element_size()
    return -(-end // ALIGNED) * ALIGNED


def _to_device(module: nn.Module, layers: Sequence[nn.Module], device: torch.device) -> list[list[Tensor]]:
    """The tensors that one layer alone holds, layer by layer; all others are on the device afterwards."""
    held = [{id(t): t for t in (*layer.parameters(), *layer.buffers())} for layer in layers]
    inside = {id(each) for layer in layers for each in layer.modules()}
    outside = [each for each in module.modules() if id(each) not in inside]
    elsewhere = {id(t): t for each in outside for t in (*each.parameters(recurse=False), *each.buffers(recurse=False))}
    count: dict[int, int] = {}
    for tensors in held:
        for key in tensors:
            count[key] = count.get(key, 0) + 1
    own = [[t for key, t in each.items() if count[key] == 1 and key not in elsewhere] for each in held]
    kept = {id(t) for each in own for t in each}
    for tensor in {key: t for each in (*held, elsewhere) for key, t in each.items() if key not in kept}.values():
        tensor.data = tensor.data.to(device)
    return own
