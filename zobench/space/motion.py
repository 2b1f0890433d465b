"""Motion: what is left of a step when it is rounded to the dtype of the parameters."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from zobench.space.support import Support
from zobench.space.sweep import Change, Sweep, run


class Motion(NamedTuple):
    """The realised step r = stored after - stored before against the intended one s, over all entries of the layout.

    `moved`: share of entries with r != 0, among those with s != 0 (0 without any). `cosine`: <r, s> / (|r| |s|), and
    NaN where r or s is zero. `length`: |r| / |s|. Rounding to the nearest swallows what is below half a unit in the
    last place.
    """

    moved: float
    cosine: float
    length: float


@torch.no_grad()
def motion(support: Support, changes: Mapping[str, Change]) -> Motion:
    """Return the motion of the changes of these parameters, without writing them."""
    meant = moved = product = squared_meant = squared_real = 0.0
    for name, change in changes.items():
        blocks = support.layout.blocks_of[name]
        before = support.entries(name, support.parameters[name].detach())
        after, update = before.clone(), change.of(blocks[0].segment)
        run([Sweep(blocks, after, update)])
        for block in blocks:
            old, new = (x[block.start : block.stop].double() for x in (before, after))
            intended, realised = old * (update.keep - 1.0), new - old
            for draw, amounts in update.lines:
                u = draw(block)
                if u is not None:
                    intended += amounts[0] * u.double()
            meant += int((intended != 0).sum())
            moved += int(((realised != 0) & (intended != 0)).sum())
            product += float(intended @ realised)
            squared_meant += float(intended @ intended)
            squared_real += float(realised @ realised)
    lengths = math.sqrt(squared_meant) * math.sqrt(squared_real)
    return Motion(
        moved / meant if meant else 0.0,
        product / lengths if lengths else math.nan,
        math.sqrt(squared_real / squared_meant) if squared_meant else math.nan,
    )
