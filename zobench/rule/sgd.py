"""Stochastic gradient descent."""

from dataclasses import dataclass

from zobench.combination import Combination
from zobench.rule.rule import Memoryless
from zobench.space.space import Space


@dataclass(frozen=True)
class SGD(Memoryless):
    """x <- (1 - lr_t wd) x - lr_t g, with decoupled weight decay on the parameters that decay, see `Groups`.

    Memory is the step count. The space fuses the step with its restore: no sweep of its own.

    Raises:
        ValueError: a learning rate or the weight decay is negative or not finite.
    """

    def apply_(self, space: Space, gradient: Combination, memory: int) -> int:
        """Take one step."""
        lr = self.rate(memory)
        space.step_(gradient, -lr, lr * self.weight_decay, self.groups)
        return memory + 1
