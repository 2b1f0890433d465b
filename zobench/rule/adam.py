"""Adam, with two buffers or as a replayed window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from zobench.combination import Combination
from zobench.layout import Block
from zobench.numbers import real, store
from zobench.rule.rule import Memory, ScheduledRule
from zobench.rule.window import Window, factor, window_of
from zobench.space.space import Space


class Moments(NamedTuple):
    """The next step, the number of steps that were not skipped, and m and v of every segment, in layout order."""

    step: int
    taken: int
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]


@dataclass(frozen=True)
class Adam(ScheduledRule):
    """m_t = b1 m + (1 - b1) g, v_t = b2 v + (1 - b2) g^2, x <- (1 - lr_t wd) x - lr_t m^ / (sqrt(v^) + eps), with
    m^ = m / (1 - b1^t), v^ = v / (1 - b2^t): Adam with decoupled weight decay (AdamW), on any gradient estimate.

    With `window` w nothing of the model's size is held: each step is that of Adam restarted w - 1 steps before, whose
    gradients are drawn again, w n directions a step. Without it m and v are held, two numbers a weight. Both are
    rebuilt to the bit from keys and losses. Source: Kingma and Ba 2015; Loshchilov and Hutter 2019.

    Raises:
        ValueError: as SGD; beta1 or beta2 is not in [0, 1), eps is not positive, or window is no whole number from 1.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        eps = real("eps", self.eps, "give a positive number, such as 1e-8", lambda eps: eps > 0)
        betas = {name: factor(name, getattr(self, name)) for name in ("beta1", "beta2")}
        store(self, **betas, eps=eps, window=window_of(self.window))

    @property
    def held(self) -> float:
        """2 with buffers, 0 with a window."""
        return 0.0 if self.window else 2.0

    def init(self, space: Space) -> Memory:
        """Return m = v = 0."""
        return Window() if self.window else Moments(0, 0, space.zeros(), space.zeros())

    def rate(self, memory: Memory) -> float:
        """Return the learning rate of the next step."""
        return self.lr_at(memory.step)

    def apply_(self, space: Space, gradient: Combination, memory: Memory) -> Memory:
        """Take one step."""
        lr = self.rate(memory)
        shrink = lr * self.weight_decay
        if isinstance(memory, Window):
            assert self.window is not None
            memory = memory.extended(gradient, self.window)
            space.update_(memory.recent, self._replayed, -lr, shrink, self.groups)
            return memory
        names = [s.name for s in space.layout.segments]
        held = {name: pair for name, *pair in zip(names, memory.first, memory.second, strict=True)}
        taken = memory.taken + 1

        def moments(block: Block, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
            (g,) = gradients
            m, v = (each[block.start : block.stop] for each in held[block.segment.name])
            return self._direction(self._accumulate(m, v, g), taken)

        space.update_((gradient,), moments, -lr, shrink, self.groups)
        return Moments(memory.step + 1, taken, memory.first, memory.second)

    def skip(self, memory: Memory) -> Memory:
        """Return the memory with the next step."""
        return memory._replace(step=memory.step + 1)

    def _replayed(self, block: Block, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
        m, v = gradients[0].new_zeros(block.size), gradients[0].new_zeros(block.size)
        for g in gradients:
            self._accumulate(m, v, g)
        return self._direction((m, v), len(gradients))

    def _accumulate(self, m: Tensor, v: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        m.mul_(self.beta1).add_(g, alpha=1.0 - self.beta1)
        v.mul_(self.beta2).addcmul_(g, g, value=1.0 - self.beta2)
        return m, v

    def _direction(self, moments: tuple[Tensor, Tensor], taken: int) -> Tensor:
        m, v = moments
        root = (v / (1.0 - self.beta2**taken)).sqrt_().add_(self.eps)
        return m / (1.0 - self.beta1**taken) / root
