"""The streamed engine: paired, with the blocks of a model fetched into memory ahead of their use."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from zobench.space.paired import Paired
from zobench.space.slots import KEPT, Residence, Slots, fetcher
from zobench.space.stored import Point, Stored


class Streamed(Paired):
    """Two points x + a u and x + b u of a model whose layers lie outside of memory, such as in memory-mapped files: a
    thread fetches the next layer while one is read. The layer that is read is written with the pending step in the same
    pass, is perturbed to both points of a line, and goes back: a step of two points fetches each layer once (ZO2, arXiv
    2503.12668, with the deferred update at the rate of its own step). With `Slots` layers lie in host memory and are
    computed on another device.

    Losses and parameters are those of InForward to the bit. Holds three layers, two perturbed parameters, and the
    activations of two forwards.

    Args:
        rounding: "nearest" or "stochastic", as InForward.
        reads: the dtype in which layers read the parameters; None for the parameters' own dtype.
        residence: what fetches and releases layers, or the slots in which they are computed; None where the model is
            in memory anyway.

    Raises:
        ValueError: when attached, as Paired; or the module has no list of layers.
    """

    least_blocks = 1  # what is pending for a small parameter, too, is written when its layer is in memory anyway

    def __init__(
        self, rounding: str = "nearest", reads: torch.dtype | None = None, residence: Residence | Slots | None = None
    ) -> None:
        super().__init__(True, rounding, reads)
        self.residence = residence
        self.device = residence.device if isinstance(residence, Slots) else None

    def attach(self, stored: Stored) -> None:
        """Find the layers, and see when each is entered."""
        super().attach(stored)
        layers = layers_of(stored.module)
        self._block = {self._segments[id(p)]: k for p, k in owners(layers).items() if id(p) in self._segments}
        self._names: dict[int, list[str]] = dict(self._by_layer(self.stored.parameters))
        self._stream: Stream | Slots | None = None
        if isinstance(self.residence, Slots):
            self._stream = self.residence
            self.pairs = True  # each layer is copied once for both points
        elif self.residence is not None:
            self._stream = follow(layers, self.residence)

    @contextmanager
    def looking(self, point: Point, readers: int = 1) -> Iterator[None]:
        """As InForward, with layers on the device while they are read."""
        with self._look(readers), super().looking(point, readers):
            yield

    def flush_(self) -> None:
        """Write what is pending, layer by layer."""
        with self._look() if self.pending else nullcontext():
            super().flush_()

    def write_pending(self, names: Iterable[str]) -> None:
        """Write what is pending for these parameters, layer by layer."""
        for k, part in self._by_layer(name for name in names if name in self.pending):
            with self._stream.inside(k) if self._stream is not None and k >= 0 else nullcontext():
                super().write_pending(part)

    def parts(self) -> Iterator[Sequence[str]]:
        """Give the names of all parameters layer by layer, and release each layer after its own."""
        with self._look():
            for k, part in self._by_layer(self.stored.parameters):
                with self._stream.swept(k) if self._stream is not None and k >= 0 else nullcontext():
                    yield part

    def _look(self, readers: int = 1) -> AbstractContextManager[None]:
        return nullcontext() if self._stream is None else self._stream.look(readers, self._has_pending)

    def _has_pending(self, k: int) -> bool:
        return any(name in self.pending for name in self._names.get(k, ()))

    def _by_layer(self, names: Iterable[str]) -> list[tuple[int, list[str]]]:
        parts: dict[int, list[str]] = {}
        for name in names:
            parts.setdefault(self._block.get(name, -1), []).append(name)
        return sorted(parts.items())


def follow(layers: Sequence[nn.Module], residence: Residence) -> "Stream":
    """Let every forward fetch and release the layers that it enters, and return what does so."""
    stream = Stream(len(layers), residence)
    for k, layer in enumerate(layers):
        layer.register_forward_pre_hook(partial(stream.enter, k))
    return stream


class Stream:
    """Fetches the layer after the one that was entered, and releases the one that nobody reads any more."""

    def __init__(self, count: int, residence: Residence) -> None:
        self._count, self._residence = count, residence
        self._lock, self._latest, self._released = threading.Lock(), -1, -1

    def look(self, readers: int = 1, writes: Callable[[int], bool] = lambda k: False) -> AbstractContextManager[None]:
        """The context of a forward: it needs nothing."""
        return nullcontext()

    @contextmanager
    def inside(self, k: int) -> Iterator[None]:
        """The context in which a layer is written."""
        self.enter(k)
        yield

    @contextmanager
    def swept(self, k: int) -> Iterator[None]:
        """The context in which a sweep writes some tensors of a layer, such as scales: the system reads no more than
        these, so that none is fetched.
        """
        yield
        self.let_go(k)

    def enter(self, k: int, *_: Any) -> None:
        with self._lock:
            again, self._latest = k == self._latest, k
        # In a thread: both may wait for the disk.
        fetcher().submit(self._both_in if again else self._move_to, k)

    def let_go(self, k: int) -> None:
        """Release a layer of which no forward is under way; the first one is fetched again after the last."""
        if self._count > KEPT:
            fetcher().submit(self._residence.release, k)
            if k == self._count - 1:
                fetcher().submit(self._residence.fetch, 0)

    def _move_to(self, k: int) -> None:
        """After the first point, or the only one, has entered a layer; the second may be in the layer before."""
        if self._count > KEPT and self._released != (k - 2) % self._count:
            self._release(k - 2)
        self._residence.fetch((k + 1) % self._count)

    def _both_in(self, k: int) -> None:
        """After the second point has entered the layer, too: it has a layer's time to be written until the next but one
        is fetched.
        """
        if self._count > KEPT:
            self._release(k - 1)

    def _release(self, k: int) -> None:
        self._released = k % self._count
        self._residence.release(self._released)


def layers_of(module: nn.Module) -> Sequence[nn.Module]:
    """Return the layers of a model: of all lists of modules of one class, the list with the most parameters.

    Raises:
        ValueError: there is no such list.
    """
    lists = [m for m in module.modules() if isinstance(m, nn.ModuleList) and len({type(layer) for layer in m}) == 1]
    sizes = [sum(p.numel() for p in each.parameters()) for each in lists]
    if not any(sizes):
        raise ValueError(
            f"{type(module).__name__} has no list of layers (a torch.nn.ModuleList of modules of one class), by which "
            "the streamed engine fetches a model: give --engine in-forward, which holds the model in memory"
        )
    return list(lists[sizes.index(max(sizes))])


def owners(layers: Sequence[nn.Module]) -> dict[nn.Parameter, int]:
    """Return the number of the layer of each parameter: the first that has it, where layers share parameters."""
    found: dict[nn.Parameter, int] = {}
    for k, layer in enumerate(layers):
        for p in layer.parameters():
            found.setdefault(p, k)
    return found
