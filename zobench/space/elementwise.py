"""One sweep of an element-wise rule over the parameters: (x, gradients) -> x, block by block."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.groups import Groups
from zobench.law import Direction
from zobench.layout import Block
from zobench.space import space
from zobench.space.support import Support
from zobench.space.sweep import rounding_key, store_at_random
from zobench.threads import in_parallel


class Elementwise(NamedTuple):
    """x <- (1 - p d shrink) x + p scale * direction(block, x, gradients), each gradient a list of directions and
    amounts; bfloat16 is rounded at random where there is a `rounding` key.
    """

    gradients: Sequence[Sequence[tuple[Direction, float]]]
    direction: space.Direction
    scale: float
    shrink: float
    groups: Groups
    rounding: int | None

    def apply_(self, block: Block, stored: Tensor) -> None:
        """Replace the stored entries of a block."""
        factors = self.groups.of(block.segment)
        x = stored.to(block.segment.dtype)
        step = self.direction(block, x, [_dense(block, gradient) for gradient in self.gradients])
        total = x * (1.0 - factors.decay * self.shrink)
        total.add_(step, alpha=factors.rate * self.scale)
        key = rounding_key(self.rounding, block.segment, stored.dtype)
        if key is None:
            stored.copy_(total)
        else:
            store_at_random(block, stored, total, key)


def _dense(block: Block, gradient: Sequence[tuple[Direction, float]]) -> Tensor:
    total = torch.zeros(block.size, dtype=block.segment.dtype, device=block.segment.device)
    for draw, amount in gradient:
        u = draw(block)
        if u is not None:
            total.add_(u, alpha=amount)
    return total


def update(support: Support, names: Sequence[str], change: Elementwise) -> None:
    """Apply the rule to every block of these parameters, on as many threads as torch uses."""
    views = {name: support.entries(name, support.parameters[name].detach()) for name in names}
    blocks = [block for name in names for block in support.layout.blocks_of[name]]
    waiting = iter(blocks)  # of a list: each block goes to one thread

    @torch.no_grad()
    def take() -> None:
        for block in waiting:
            change.apply_(block, views[block.segment.name][block.start : block.stop])

    if blocks:
        in_parallel(take, len(blocks), blocks[0].segment.device)
    with torch.no_grad():
        for name in names:
            if support.copies(name):
                support.parameters[name].copy_(views[name].view(support.parameters[name].shape))
