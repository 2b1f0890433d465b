"""Motion: what is left of a step when it is rounded to the dtype of the parameters."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.layout import Block
from zobench.random import streams
from zobench.random.keys import derive
from zobench.space.support import Support
from zobench.space.sweep import Change, Sweep, Update, pay, rounding_key, run

NOISE = 0.5
EXACT = 1 << 28
"""The most entries of parameters that are looked at one and all; above it a sample of each tensor stands for it."""
SPANS, SPAN = 16, 4096
"""Spans of a tensor's sample, and entries of a span."""


class Motion(NamedTuple):
    """The realised step r = stored after - stored before against the intended one s, over all entries of the layout.

    `moved`: share of entries with r != 0, among those with s != 0 (0 without any). `cosine`: <r, s> / (|r| |s|), and
    NaN where r or s is zero. `length`: |r| / |s|. Rounding to the nearest swallows what is below half a unit in the
    last place. `sampled`: how many entries stand for all, 0 where all were looked at.
    """

    moved: float
    cosine: float
    length: float
    sampled: int = 0

    @property
    def row(self) -> dict[str, float]:
        """The numbers by name, `sampled` where there is a sample."""
        return {name: value for name, value in self._asdict().items() if name != "sampled" or value}

    @property
    def is_noise(self) -> bool:
        """Whether most of the realised step is rounding: the cosine is below 0.5, or nothing moved."""
        return not self.cosine >= NOISE


class StepComparison:
    """Adds up the realised steps of parts of the parameters against the intended ones.

    With `walked`, `moved` is the share of all entries: the walk to the points and back moves entries that no step was
    meant to move.
    """

    def __init__(self, walked: bool = False) -> None:
        self._walked = walked
        self._intended = self._moved = self._product = self._squared_intended = self._squared_realised = 0.0

    def add(self, intended: Tensor, realised: Tensor, weight: float = 1.0) -> None:
        """Add a part, two float64 vectors of one length, each entry of which stands for `weight` entries."""
        wanted = torch.ones_like(intended, dtype=torch.bool) if self._walked else intended != 0
        self._intended += weight * int(wanted.sum())
        self._moved += weight * int(((realised != 0) & wanted).sum())
        self._product += weight * float(intended @ realised)
        self._squared_intended += weight * float(intended @ intended)
        self._squared_realised += weight * float(realised @ realised)

    @property
    def motion(self) -> Motion:
        """The motion over the parts so far."""
        lengths = math.sqrt(self._squared_intended) * math.sqrt(self._squared_realised)
        return Motion(
            self._moved / self._intended if self._intended else 0.0,
            self._product / lengths if lengths else math.nan,
            math.sqrt(self._squared_realised / self._squared_intended) if self._squared_intended else math.nan,
        )


@torch.no_grad()
def motion(support: Support, changes: Mapping[str, Change]) -> Motion:
    """Return the motion of the changes of these parameters, without writing them. With more than `EXACT` entries in
    all, 16 spans of 4,096 entries stand for each tensor that has more: drawn by the tensor's name, one from each
    sixteenth of it, the same at every step.
    """
    compared, cut = StepComparison(), support.layout.blocks_of
    sampled = sum(cut[name][0].segment.size for name in changes) > EXACT
    seen = 0
    for name, change in changes.items():
        segment = cut[name][0].segment
        blocks = _spans(cut[name]) if sampled and segment.size > SPANS * SPAN else cut[name]
        before = support.entries(name, support.parameters[name].detach()).to(segment.device)
        update, count = change.of(segment), sum(block.size for block in blocks)
        for block, old, new in _written(blocks, before, update):
            intended = old * (update.keep - 1.0)
            for draw, amounts in update.lines:
                u = draw(block)
                if u is not None:
                    intended += amounts[0] * u.double()
            compared.add(intended, new - old, segment.size / count)
        seen += count
    return compared.motion._replace(sampled=seen if sampled else 0)


def _written(blocks: Sequence[Block], before: Tensor, update: Update) -> Iterator[tuple[Block, Tensor, Tensor]]:
    """Each block, its entries before, and as an update would write them, float64."""
    segment = blocks[0].segment
    if sum(block.size for block in blocks) == segment.size:
        after = before.clone()
        run([Sweep(blocks, after, update)])
        for block in blocks:
            old, new = (x[block.start : block.stop].double() for x in (before, after))
            yield block, old, new
        return
    key = rounding_key(update.rounding, segment, before.dtype)
    for block in blocks:
        written = before[block.start : block.stop].clone()
        pay(block, written, update, key)
        yield block, before[block.start : block.stop].double(), written.double()


def _spans(blocks: Sequence[Block]) -> list[Block]:
    """The sample of a tensor."""
    segment, offset = blocks[0].segment, blocks[0].offset
    edges = [segment.size // SPAN * i // SPANS for i in range(SPANS + 1)]
    drawn = streams.uniform(derive("motion", segment.name), (SPANS,)).add_(1.0).mul_(0.5).tolist()
    spans = [low + int(u * (high - low)) for u, low, high in zip(drawn, edges, edges[1:], strict=False)]
    return [Block(segment, k, k * SPAN, (k + 1) * SPAN, offset + k * SPAN) for k in spans]
