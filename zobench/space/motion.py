"""Motion: what is left of a step when it is rounded to the dtype of the parameters."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.space.support import Support
from zobench.space.sweep import Change, Sweep, run

NOISE = 0.5


class Motion(NamedTuple):
    """The realised step r = stored after - stored before against the intended one s, over all entries of the layout.

    `moved`: share of entries with r != 0, among those with s != 0 (0 without any). `cosine`: <r, s> / (|r| |s|), and
    NaN where r or s is zero. `length`: |r| / |s|. Rounding to the nearest swallows what is below half a unit in the
    last place.
    """

    moved: float
    cosine: float
    length: float

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
    """Return the motion of the changes of these parameters, without writing them."""
    compared = StepComparison()
    for name, change in changes.items():
        blocks = support.layout.blocks_of[name]
        before = support.entries(name, support.parameters[name].detach())
        after, update = before.clone(), change.of(blocks[0].segment)
        run([Sweep(blocks, after, update)])
        for block in blocks:
            old, new = (x[block.start : block.stop].double() for x in (before, after))
            intended = old * (update.keep - 1.0)
            for draw, amounts in update.lines:
                u = draw(block)
                if u is not None:
                    intended += amounts[0] * u.double()
            compared.add(intended, new - old)
    return compared.motion
