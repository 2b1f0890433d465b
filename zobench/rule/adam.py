"""Adam, with two buffers or as a replayed window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from zobench.combination import Combination
from zobench.layout import Block
from zobench.numbers import real, store
from zobench.rule.averaging import Averaging
from zobench.rule.window import factor
from zobench.space.space import Space


class AdamMemory(NamedTuple):
    """The next step, the number of steps that were not skipped, and m and v of every segment, in layout order."""

    step: int
    taken: int
    first: tuple[Tensor, ...]
    second: tuple[Tensor, ...]


@dataclass(frozen=True)
class Adam(Averaging):
    """m_t = b1 m + (1 - b1) g, v_t = b2 v + (1 - b2) g^2, x <- (1 - lr_t wd) x - lr_t m^ / (sqrt(v^) + eps), with
    m^ = m / (1 - b1^t), v^ = v / (1 - b2^t): Adam with decoupled weight decay (AdamW), on any gradient estimate.

    With `window` w nothing of the model's size is held: each step is that of Adam restarted w - 1 steps before, whose
    gradients are drawn again, w n directions a step. Without it m and v are held, two numbers a weight. Both are
    rebuilt to the bit from keys and losses. Source: Kingma and Ba 2015; Loshchilov and Hutter 2019.

    Raises:
        ValueError: as SGD; beta1 or beta2 is not in [0, 1), eps is not positive, or window is no whole number from 1.
    """

    buffers: ClassVar[int] = 2
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        eps = real("eps", self.eps, "give a positive number, such as 1e-8", lambda eps: eps > 0)
        betas = {name: factor(name, getattr(self, name)) for name in ("beta1", "beta2")}
        store(self, **betas, eps=eps)

    def zero(self, space: Space) -> AdamMemory:
        """Return m = v = 0."""
        return AdamMemory(0, 0, space.zeros(), space.zeros())

    def replayed_(self, space: Space, recent: Sequence[Combination], lr: float, shrink: float) -> None:
        """Take the step of m and v over these gradients alone."""
        space.update_(recent, self._replayed, -lr, shrink, self.groups)

    def averaged_(
        self, space: Space, gradient: Combination, memory: AdamMemory, lr: float, shrink: float
    ) -> AdamMemory:
        """Take the step of m and v."""
        names = [s.name for s in space.layout.segments]
        held = {name: pair for name, *pair in zip(names, memory.first, memory.second, strict=True)}
        taken = memory.taken + 1

        def moments(block: Block, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
            (g,) = gradients
            m, v = (each[block.start : block.stop] for each in held[block.segment.name])
            return self._direction(self._accumulate(m, v, g), taken)

        space.update_((gradient,), moments, -lr, shrink, self.groups)
        return AdamMemory(memory.step + 1, taken, memory.first, memory.second)

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
