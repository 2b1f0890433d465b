"""The work of a sweep on one block: flush the pending step into the stored values, write the block perturbed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.groups import UNIFORM, Factors, Groups
from zobench.law import Direction
from zobench.layout import Block, Segment
from zobench.random import fused, native, streams
from zobench.random.keys import derive
from zobench.random.native import NativeMask, NativeStream
from zobench.threads import in_parallel

Amounts = Sequence[float]


class Drawn(NamedTuple):
    """A direction, and its amount in the stored values or at each point."""

    draw: Direction
    amounts: Amounts


class Update(NamedTuple):
    """x <- keep x + sum of amounts u, in one segment.

    With a `rounding` key the sum is rounded once and at random, without bias, where x is bfloat16.
    """

    keep: float
    lines: Sequence[Drawn]
    rounding: int | None = None


NOTHING = Update(1.0, ())


class Moved(NamedTuple):
    """A direction, and how far x comes back along it, goes on along it, and steps along it."""

    draw: Direction
    back: float
    forth: float
    step: float


@dataclass(frozen=True, eq=False)
class Change:
    """x <- k (x + sum of back u) + sum of (forth + p step) u, where p is the learning-rate multiplier of a segment and
    k = 1 - d shrink, d its decay: what is restored and what is perturbed knows no groups.
    """

    shrink: float
    lines: Sequence[Moved]
    rounding: int | None = None
    groups: Groups = UNIFORM
    _known: dict[Factors, Update] = field(default_factory=dict)

    def of(self, segment: Segment) -> Update:
        """Return what the change is in a segment."""
        factors = self.groups.of(segment)
        if factors not in self._known:
            self._known[factors] = self._of(factors)
        return self._known[factors]

    def _of(self, factors: Factors) -> Update:
        keep = 1.0 - factors.decay * self.shrink
        amounts = ((line.draw, keep * line.back + (line.forth + factors.rate * line.step)) for line in self.lines)
        return Update(keep, [Drawn(draw, (amount,)) for draw, amount in amounts if amount], self.rounding)


class Sweep:
    """One pass over a parameter: its stored values are updated, and each target is filled with them perturbed along the
    lines. Threads that share a sweep share its blocks; who ends last has waited for nobody.

    `stored` and the targets are vectors of the segment that `blocks` cut. The number drawn for an entry depends on keys
    and its place alone, so that blocks, their order and the number of threads do not change the result.

    `mask` has the octets of `small`, made of the updated values; None where the sweep is not the native one.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        stored: Tensor,
        update: Update,
        lines: Sequence[Drawn] = (),
        targets: Sequence[Tensor] = (),
        small: NativeMask | None = None,
    ) -> None:
        self.blocks, self.stored, self.update, self.lines, self.targets = blocks, stored, update, lines, targets
        self._waiting = iter(blocks)  # a list's iterator gives each block to one thread
        self._rounding = rounding_key(update.rounding, blocks[0].segment, stored.dtype) if blocks else None
        self._native = _native(self, small)
        self.mask = small.octets if small is not None and isinstance(self._native, native.NativeSweep) else None

    @torch.no_grad()
    def take(self) -> None:
        """Sweep the blocks that no other thread has taken."""
        if self._native is not None:
            self._native.take()
            return
        for block in self._waiting:
            self._sweep(block)

    def _sweep(self, block: Block) -> None:
        span = slice(block.start, block.stop)
        pay(block, self.stored[span], self.update, self._rounding)
        drawn = [(u, amounts) for draw, amounts in self.lines if (u := draw(block)) is not None]
        for index, target in enumerate(self.targets):
            x = self.stored[span]
            for u, amounts in drawn:  # the first sum is of the stored values, so that a narrow target rounds it once
                x = torch.add(x, u, alpha=amounts[index], out=target[span])
            if not drawn:
                target[span].copy_(x)


def pay(block: Block, stored: Tensor, update: Update, rounding: int | None) -> None:
    """Update the stored values of a block, which may be any entries of a segment, with the segment's `rounding_key`."""
    if update.keep == 1.0 and not update.lines:
        return
    total = stored if rounding is None else stored.float()
    if update.keep != 1.0:
        total.mul_(update.keep)
    for draw, amounts in update.lines:
        _add(total, draw(block), amounts[0])
    if rounding is not None:
        store_at_random(block, stored, total, rounding)


def store_at_random(block: Block, stored: Tensor, total: Tensor, key: int) -> None:
    """Store float32 numbers of a block, which are overwritten, as bfloat16, rounded at random without bias: entry j of
    the segment by 16 bits that are a function of the key and j.
    """
    bits = total.view(torch.int32).add_(streams.words16(key, block.start, block.stop, total.device))
    stored.copy_(bits.bitwise_and_(-0x10000).view(torch.float32))


def rounding_key(key: int | None, segment: Segment, dtype: torch.dtype) -> int | None:
    """Return the key of a segment's random rounding; None if it is rounded to the nearest."""
    return None if key is None or dtype != torch.bfloat16 else derive(key, "rounding", segment.name)


def _add(total: Tensor, u: Tensor | None, amount: float) -> None:
    if u is not None and amount:
        total.add_(u, alpha=amount)


def _native(job: Sweep, small: NativeMask | None) -> native.NativeSweep | fused.FusedSweep | None:
    """The sweep in C, or on CUDA in Triton, if it can do this one."""
    segment = job.blocks[0].segment if job.blocks else None
    if segment is None or segment.dtype != torch.float32:
        return None
    on_device = fused.available(segment.device)
    if not (on_device or native.available()):
        return None
    pending, lines = native_lines(segment, job.update.lines), native_lines(segment, job.lines)
    if pending is None or lines is None:
        return None
    what = (job.stored, job.update.keep, pending, lines, job.targets, job._rounding)
    try:
        return fused.FusedSweep(*what) if on_device else native.NativeSweep(*what, small)
    except native.UnreadableError:
        return None


def native_lines(segment: Segment, lines: Sequence[Drawn]) -> list[native.NativeLine] | None:
    """Return what these directions are in a segment; None where one must be called."""
    streams = []
    for draw, amounts in lines:
        ask: Callable[[Segment], NativeStream | None] | None = getattr(draw, "native", None)
        stream = ask(segment) if ask else None  # asking a runtime protocol costs some percent of a small step
        if stream is None:
            return None
        streams.append((stream, amounts))
    return streams


def run(jobs: Sequence[Sweep]) -> None:
    """Sweep all parameters, on as many threads as torch uses; they must not share what they write."""

    def take() -> None:
        for job in jobs:
            job.take()

    if jobs:
        in_parallel(take, sum(len(job.blocks) for job in jobs), jobs[0].stored.device)
