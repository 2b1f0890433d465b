"""Laws that learn from the scalars of the steps before."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.law.law import Kept, Law
from zobench.layout import CPU, Block, Layout

Buffers = Mapping[str, Tensor]


class Past(NamedTuple):
    """The number of a step, and the key of the step before it and the scalars that it left, one a direction; without
    scalars it left nothing.
    """

    step: int = 0
    key: int = 0
    scalars: tuple[float, ...] = ()


@dataclass(frozen=True)
class AdaptiveLaw(Law):
    """A law whose directions depend on buffers in the space, which the scalars of every step change: see
    `zobench.Adaptive`.

    The buffers b_k = learn(b_(k-1), past), `past` the key and the scalars of step k - 1. The space keeps them with its
    snapshots, where checkpoints find them; a step is learned from once, however often the law is bound. Given the
    buffers the law is fixed; in a LineEstimator alone it stays at its first step.
    """

    past: Past = field(default=Past(), repr=False, kw_only=True)
    buffers: Buffers | None = field(default=None, compare=False, repr=False, kw_only=True)

    @property
    def reads_weights(self) -> bool:
        """True: a space must bind it to the buffers."""
        return True

    def after(self, past: Past) -> "AdaptiveLaw":
        """Return the law of the step whose past this is."""
        return replace(self, past=past, buffers=None)

    @abstractmethod
    def remembered(self, slopes: Tensor, losses: Tensor, offsets: Tensor) -> Tensor:
        """Return the scalars (n,) that a step leaves, of its slopes (n,), losses and offsets (n, m)."""

    @abstractmethod
    def begun(self, layout: Layout) -> Buffers:
        """Return the buffers before the first step, by name."""

    @abstractmethod
    def learn_(self, layout: Layout, past: Past) -> None:
        """Change the buffers, in place, by what the step before left; the law is bound to those of that step."""

    def bind(self, layout: Layout, weights: Callable[[Block], Tensor]) -> "AdaptiveLaw":
        """Return the law of a first step.

        Raises:
            ValueError: it is one of a later step.
        """
        return self.recall(layout, weights, {})

    def recall(self, layout: Layout, weights: Callable[[Block], Tensor], kept: Kept) -> "AdaptiveLaw":
        """Return the law with the buffers of its step, which `kept` holds afterwards.

        Raises:
            ValueError: `kept` has the buffers of neither its step nor the one before, or of other sizes.
        """
        name, step = self.shelf, self.past.step
        last = int(kept[name][0]) if name in kept else 0
        if name not in kept and step:
            raise ValueError(
                f"the space does not hold the buffers of {self!r} at step {step}: steps go on in the space of those "
                "before, or in one with its snapshots"
            )
        if step not in (last, last + 1):
            raise ValueError(f"the space holds the buffers of {self!r} at step {last}, not those of step {step}")
        buffers = {each: self._of(kept, f"{name} {each}", start) for each, start in self.begun(layout).items()}
        bound = replace(self, buffers=buffers)
        if step != last and self.past.scalars:
            del kept[name]  # so that an interrupt leaves no half of a step, which would pass for a whole one
            with torch.no_grad():
                bound.learn_(layout, self.past)
        kept[name] = [torch.tensor(step, dtype=torch.int64, device=CPU)]
        return bound

    @property
    def shelf(self) -> str:
        """The name under which a space keeps the buffers."""
        return repr(self)

    def _of(self, kept: Kept, name: str, start: Tensor) -> Tensor:
        (buffer,) = kept.setdefault(name, [start])
        if buffer.shape != start.shape:
            raise ValueError(
                f"a buffer of {self!r} has {buffer.numel()} entries, but {start.numel()} are trained now: "
                "such a law cannot be restricted to some rows (--rows all)"
            )
        return buffer

    def required(self) -> Buffers:
        """Return the buffers.

        Raises:
            ValueError: the law is not bound.
        """
        if self.buffers is None:
            raise ValueError(f"{self!r} reads buffers of a space: draw from law.bind(layout, weights), as spaces do")
        return self.buffers


def of_weights(layout: Layout, value: float) -> Buffers:
    """Return a buffer for each segment, of its size and dtype."""
    return {s.name: torch.full((s.size,), value, dtype=s.dtype, device=s.device) for s in layout.segments}


def part(buffers: Buffers, block: Block) -> Tensor:
    """Return the entries of a buffer that belong to a block."""
    return buffers[block.segment.name][block.start : block.stop]
