"""AdaMeZO: Adam's moments as plain sums over a replayed window."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.combination import Combination
from zobench.layout import Block
from zobench.numbers import count, real, store
from zobench.rule.rule import ScheduledRule
from zobench.rule.window import Window
from zobench.rule.window import factor as decay
from zobench.space.space import Space

POSITIVE = "give a positive number"


@dataclass(frozen=True)
class AdaMeZO(ScheduledRule):
    """x <- (1 - lr_t wd) x - lr_t factor m / (sqrt(v) + eps), m = sum_k beta1^k g_(t-k), v = sum_k beta2^k g_(t-k)^2 of
    the last `window` steps; in the first `window` steps x <- (1 - lr_t wd) x - lr_t g_t.

    As published: sums without (1 - beta) and without bias correction, eps beside the root, and a factor of 100 on the
    rate that the plain first steps do not have; `Adam(window=10)` is Adam's own form. Nothing of the model's size is
    held; a step draws the directions of `window` gradients. Source: AdaMeZO (ICML 2026) and its code.

    Raises:
        ValueError: as SGD; beta1 or beta2 is not in [0, 1), eps or factor is not positive, or window is no whole number
            from 1.
    """

    beta1: float = 0.7
    beta2: float = 0.9
    eps: float = 1e-5
    factor: float = 100.0
    window: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        positive = {name: real(name, getattr(self, name), POSITIVE, lambda x: x > 0) for name in ("eps", "factor")}
        betas = {name: decay(name, getattr(self, name)) for name in ("beta1", "beta2")}
        window = count("window", self.window, "give the number of steps that are replayed, from 1")
        store(self, **positive, **betas, window=window)

    def init(self, space: Space) -> Window:
        """Return an empty window."""
        return Window()

    def rate(self, memory: Window) -> float:
        """Return the learning rate of the next step."""
        return self.lr_at(memory.step)

    def apply_(self, space: Space, gradient: Combination, memory: Window) -> Window:
        """Take one step."""
        lr = self.rate(memory)
        shrink, is_plain = lr * self.weight_decay, len(memory.recent) < self.window
        memory = memory.extended(gradient, self.window)
        if is_plain:
            space.step_(gradient, -lr, shrink, self.groups)
        else:
            space.update_(memory.recent, self._direction, -lr * self.factor, shrink, self.groups)
        return memory

    def skip(self, memory: Window) -> Window:
        """Return the memory with the next step."""
        return memory._replace(step=memory.step + 1)

    def _direction(self, block: Block, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
        m, v = torch.zeros_like(gradients[0]), torch.zeros_like(gradients[0])
        for g in gradients:
            m.mul_(self.beta1).add_(g)
            v.mul_(self.beta2).addcmul_(g, g)
        return m / v.sqrt_().add_(self.eps)
