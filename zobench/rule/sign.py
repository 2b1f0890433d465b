"""The sign of each entry of the estimate."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from zobench.combination import Combination
from zobench.layout import Block
from zobench.rule.rule import Memoryless
from zobench.space.space import Space


@dataclass(frozen=True)
class SignSGD(Memoryless):
    """x <- (1 - lr_t wd) x - lr_t sign(g), entry by entry; sign(0) = 0. Each entry that g moves moves by lr_t.

    Not the map `Sign`, sign(s) u, which keeps the length of a direction: with one direction a step the two are equal
    where u has entries +-1. Memory is the step count; the step is one sweep of its own. Source: Bernstein et al. 2018.

    Raises:
        ValueError: a learning rate or the weight decay is negative or not finite.
    """

    def apply_(self, space: Space, gradient: Combination, memory: int) -> int:
        """Take one step."""
        lr = self.rate(memory)
        space.update_((gradient,), _sign, -lr, lr * self.weight_decay, self.groups)
        return memory + 1


def _sign(block: Block, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
    (g,) = gradients
    return g.sign()
