"""The contract of an engine: how the points of a plan come into being, and when steps are written."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from zobench.space.closure import Value
from zobench.space.slope import dual
from zobench.space.stored import Point, Step, Stored
from zobench.space.sweep import Drawn
from zobench.space.trainable import require_alike


class Engine(ABC):
    """Lets a loss see x + sum of amount * u, and writes steps. One engine serves one space, which keeps the books: it
    resolves plans into points, binds laws, takes snapshots and refuses steps that are not finite.

    The space calls from one thread, one method at a time, and only while nothing is torn. Where a method raises, the
    space calls `flush_` before it goes on, except where it left `stored.torn`. What an engine holds beside the model
    is told in its docstring.
    """

    in_place: bool = False
    """Whether the stored parameters may be at a point between two calls. The space then calls `flush_` before
    directions live on other rows; otherwise a pending step is written with the `support` it was asked for."""
    reads: torch.dtype | None = None
    """The dtype in which f reads parameters; None is their own."""
    device: torch.device | None = None
    """Where parameters are when they are read and written, and directions are drawn; None: where they are stored."""
    rounding: str = "nearest"
    """How steps of bfloat16 parameters are rounded: "nearest", or "stochastic" by the key of a `Step`."""
    stored: Stored

    def attach(self, stored: Stored) -> None:
        """Begin to serve the parameters of a space: once, before everything else.

        Raises:
            ValueError: the engine cannot serve this module.
        """
        self.stored = stored

    @abstractmethod
    def losses(self, loss: Callable[[], Value], points: Sequence[Point]) -> list[Value]:
        """Return the losses at points of one line, in their order: loss() is called once at each. Pending steps are in
        what it reads. A loss may be a tensor that the device still computes; the space reads those of a plan at once.
        """

    def losses_of_lines(self, loss: Callable[[], Value], lines: Sequence[Sequence[Point]]) -> list[list[Value]]:
        """Return the losses at the points of all lines of a plan, the base point as a line of its own before them: here
        those of one line after the other.
        """
        return [self.losses(loss, points) for points in lines]

    def replay_(self, points: Sequence[Point]) -> None:
        """Leave the stored parameters as `losses` does, to the bit, after the next flush_ at the latest."""
        self.flush_()

    @abstractmethod
    def step_(self, step: Step) -> None:
        """Take a step from x, or note it as pending."""

    @abstractmethod
    def flush_(self) -> None:
        """Bring the stored parameters back to x, pending steps included; without either, do nothing."""

    def parts(self) -> Iterator[Sequence[str]]:
        """Give the names of all parameters, in the groups in which a sweep that is not the engine's own writes them."""
        yield list(self.stored.parameters)

    def reading(self) -> AbstractContextManager[None]:
        """Return the context in which a forward of this thread reads x as losses do; x is flushed before."""
        return nullcontext()

    @contextmanager
    def tangents(self, line: Drawn) -> Iterator[None]:
        """The context in which f reads parameters that carry the tangent amount * u; x is flushed before, and dual
        numbers are on. Here every parameter carries it at once.
        """
        for name, p in self._sharing():
            tangent = self.stored.support.tangent(name, line).view_as(p)
            p.copy_(dual(p.detach(), tangent))  # which writes its own values
        yield

    def _sharing(self) -> list[tuple[str, nn.Parameter]]:
        """Every parameter of the module whose memory is that of a segment, with the segment's name."""
        stored = self.stored.parameters
        names = {(p.data_ptr(), p.numel()): name for name, p in stored.items()}
        owned = ((names.get((p.data_ptr(), p.numel())), p) for p in self.stored.module.parameters())
        sharing = [(name, p) for name, p in owned if name is not None]
        for name, p in sharing:
            require_alike(name, stored[name], p)
        return sharing
