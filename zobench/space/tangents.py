"""Parameters with their part of a direction as a tangent, made where they are read."""

import torch
from torch import Tensor

from zobench.space.lazy_rows import RowSweep
from zobench.space.slope import dual
from zobench.space.support import Support
from zobench.space.sweep import NOTHING, Drawn


class Tangents:
    """What is read while a slope is taken, under `dual_numbers`: all of a parameter, or rows of a table."""

    def __init__(self, support: Support, reads: torch.dtype | None, line: Drawn) -> None:
        self.support, self.reads, self.line = support, reads, line

    def whole(self, name: str) -> Tensor:
        """Return the parameter with its tangent."""
        self.support.require_whole(name)
        return self._dual(self.support.parameters[name].detach(), self.support.tangents([name], self.line)[name])

    def rows(self, name: str, wanted: Tensor) -> Tensor:
        """Return rows of a table, given in ascending order, with theirs; blocks that hold none are not drawn."""
        stored = self.support.parameters[name].detach()
        if name in self.support.rows:
            self.support.places(name, wanted)  # or an error
            return self._dual(stored[wanted], self.support.tangents([name], self.line)[name][wanted])
        tangent = torch.zeros_like(stored[wanted])
        RowSweep(self.support.layout.blocks_of[name], wanted, NOTHING, [self.line], [tangent]).take()
        return self._dual(stored[wanted], tangent)

    def _dual(self, primal: Tensor, tangent: Tensor) -> Tensor:
        both = dual(primal, tangent)
        return both if self.reads is None else both.to(self.reads)
