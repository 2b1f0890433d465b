"""Directions along which tensors go away from where they were, or back: one random sign a tensor."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from zobench.law.law import Direction, Kept, Law
from zobench.layout import Block, Layout, Segment
from zobench.random import streams
from zobench.random.keys import derive
from zobench.random.streams import Shape


@dataclass(frozen=True)
class Radial(Law):
    """u = (z_1 (x_1 - y_1), z_2 (x_2 - y_2), ...) over tensors, y the snapshot `start` of x, z_m independent random
    signs. At x + s u tensor m is y_m + (1 + s z_m) (x_m - y_m): its distance from the snapshot is scaled, its way is
    kept.

    E[u u^T] is the blocks (x_m - y_m) (x_m - y_m)^T on the diagonal: the coefficients of an estimate have the mean d f
    / d s_m in tensor m, no matter how many weights it has, so that the variance is that of a problem in as many
    variables as there are tensors. Where x is y nothing moves.

    Memory: y, in the space and in checkpoints; and x - y, from a step with this law on until another law reads weights.

    Raises:
        ValueError: when bound, the space has no such snapshot, or one of other sizes.
    """

    start: str = "start"
    ways: Mapping[str, Tensor] | None = field(default=None, compare=False, repr=False, kw_only=True)

    @property
    def by_tensor(self) -> bool:
        """True."""
        return True

    @property
    def reads_weights(self) -> bool:
        """True."""
        return True

    @property
    def held(self) -> int:
        """32."""
        return 32

    def bind(self, layout: Layout, weights: Callable[[Block], Tensor]) -> "Radial":
        """Refuse: the snapshot is in a space.

        Raises:
            ValueError: always.
        """
        return self.recall(layout, weights, {})

    def recall(self, layout: Layout, weights: Callable[[Block], Tensor], kept: Kept) -> "Radial":
        """Return the law with x - y."""
        if self.start not in kept:
            raise ValueError(
                f"{self!r} needs the snapshot {self.start!r} of the space, which has {sorted(kept)}: let a plan keep it"
            )
        before = _flat(layout, kept[self.start])
        ways = {}
        for s in layout.segments:
            now = torch.cat([weights(block) for block in layout.blocks_of[s.name]], -1).to(s.dtype)
            if before[s.name].shape != now.shape:
                raise ValueError(
                    f"the snapshot {self.start!r} has {before[s.name].shape[-1]} entries of {s.name!r}, but "
                    f"{now.shape[-1]} are trained now: such a law cannot be restricted to some rows (--rows all)"
                )
            ways[s.name] = now - before[s.name].to(s.dtype)
        return replace(self, ways=ways)

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return z_m (x_m - y_m).

        Raises:
            ValueError: the law is not bound.
        """
        if self.ways is None:
            raise ValueError(f"{self!r} reads the weights and a snapshot of a space: draw from what `recall` returns")
        ways, signs = self.ways, {s.name: self.signs(key, index, s, batch) for s in layout.segments}

        def draw(block: Block) -> Tensor:
            way = ways[block.segment.name][..., block.start : block.stop]
            return signs[block.segment.name].unsqueeze(-1).to(way) * way

        return draw

    def signs(self, key: int, index: int, segment: Segment, batch: Shape) -> Tensor:
        """Return z_m, (*batch)."""
        return 2.0 * streams.integers(derive(key, index, segment.name, "radial"), batch, 2).double() - 1.0


def _flat(layout: Layout, snapshot: list[Tensor]) -> dict[str, Tensor]:
    """The entries of a snapshot by segment: a tensor each, or one vector (*batch, d) of a flat space."""
    names = [s.name for s in layout.segments]
    if len(snapshot) == len(names) and len(names) > 1:
        return {name: values.flatten() for name, values in zip(names, snapshot, strict=True)}
    (whole,) = snapshot
    whole = whole.flatten() if whole.numel() == layout.dim else whole
    return dict(zip(names, whole.split([s.size for s in layout.segments], -1), strict=True))
