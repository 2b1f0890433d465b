"""Directions along one coordinate."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.law.law import Direction, Isotropic, require_room
from zobench.layout import CPU, Block, Layout
from zobench.numbers import flag, store
from zobench.random import streams
from zobench.random.keys import derive
from zobench.random.streams import Shape


@dataclass(frozen=True)
class Coordinate(Isotropic):
    """u = ±sqrt(d) e_i with i uniform and a random sign; c_d = d. Epsilon perturbs coordinate i by ±epsilon.

    Without `replace` the coordinates of one step are distinct, and with n = d they are all of them: the gradient by
    finite differences. Direction 0 is the same either way.

    Raises:
        ValueError: `replace` is no bool; at the draw, n is more than d without `replace`.
    """

    replace: bool = True

    def __post_init__(self) -> None:
        store(self, replace=flag("replace", self.replace))

    @property
    def orthogonal(self) -> bool:
        """Whether the coordinates of one step are distinct."""
        return not self.replace

    @property
    def independent(self) -> "Coordinate":
        """Coordinate()."""
        return Coordinate()

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a direction with one entry that is not zero.

        Raises:
            ValueError: `index` is not below d, without `replace`.
        """
        axis = self._axis(key, index, batch, layout.dim)
        entry = streams.signs(derive(key, index, "sign"), 0, math.prod(batch), torch.float64).view(batch)
        entry.mul_(math.sqrt(layout.dim))

        def draw(block: Block) -> Tensor | None:
            if not batch and not block.offset <= int(axis) < block.offset + block.size:
                return None
            device = block.segment.device
            places = torch.arange(block.offset, block.offset + block.size, dtype=torch.int64, device=device)
            hit = places == axis.unsqueeze(-1).to(device)
            value = entry.unsqueeze(-1).to(device, block.segment.dtype)
            return torch.where(hit, value, torch.zeros_like(value))

        return draw

    def _axis(self, key: int, index: int, batch: Shape, dim: int) -> Tensor:
        if self.replace:
            return streams.integers(derive(key, index, "axis"), batch, dim)
        require_room(index, dim)
        taken = torch.empty((*batch, 0), dtype=torch.int64, device=CPU)
        for i in range(index + 1):
            axis = streams.integers(derive(key, i, "axis"), batch, dim - i)  # among those not taken
            for column in taken.unbind(-1):
                axis = axis + (axis >= column)
            taken = torch.cat((taken, axis.unsqueeze(-1)), -1).sort(-1).values
        return axis

    def fourth_moment(self, dim: int) -> float:
        """Return d."""
        return float(dim)

    def unit(self, dim: int) -> float:
        """Return d^(-1/2)."""
        return 1.0 / math.sqrt(dim)
