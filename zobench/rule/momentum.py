"""Heavy-ball momentum, with a buffer or as a replayed window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from torch import Tensor

from zobench.combination import Combination
from zobench.layout import Block
from zobench.numbers import flag, store
from zobench.rule.averaging import Averaging
from zobench.rule.window import factor
from zobench.space.space import Space


class Buffer(NamedTuple):
    """The number of the next step, and v of every segment, in the layout's order."""

    step: int
    velocity: tuple[Tensor, ...]


@dataclass(frozen=True)
class Momentum(Averaging):
    """v_t = beta v_(t-1) + g_t, x <- (1 - lr_t wd) x - lr_t v_t: SGD with heavy-ball momentum, v_0 = 0. With `nesterov`
    the step is along g_t + beta v_t in place of v_t.

    With `window` w nothing of the model's size is held: v_t is the sum of beta^j g_(t-j) over the last w steps, whose
    directions are drawn again, w n of them a step; what is left out is beta^w of the velocity. Without it v is held,
    one number a weight. Source: Polyak 1964, Nesterov 1983; the forms are those of
    torch.optim.SGD.

    Raises:
        ValueError: as SGD; beta is not in [0, 1), window is no whole number from 1, or nesterov is no flag.
    """

    buffers: ClassVar[int] = 1
    beta: float = 0.9
    window: int | None = None
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, beta=factor("beta", self.beta), nesterov=flag("nesterov", self.nesterov))

    def zero(self, space: Space) -> Buffer:
        """Return v = 0."""
        return Buffer(0, space.zeros())

    def replayed_(self, space: Space, recent: Sequence[Combination], lr: float, shrink: float) -> None:
        """Take the step of v over these gradients alone: a sum of them, which the space fuses with its restore."""
        ages = range(len(recent))
        weights = [self.beta ** (age + 1) + (age == 0) if self.nesterov else self.beta**age for age in ages]
        step = sum((w * g for w, g in zip(weights, reversed(recent), strict=True)), Combination())
        space.step_(step, -lr, shrink, self.groups)

    def averaged_(self, space: Space, gradient: Combination, memory: Buffer, lr: float, shrink: float) -> Buffer:
        """Take the step of v."""
        held = dict(zip((s.name for s in space.layout.segments), memory.velocity, strict=True))

        def accumulate(block: Block, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
            (g,) = gradients
            velocity: Tensor = held[block.segment.name][block.start : block.stop]
            velocity.mul_(self.beta).add_(g)
            return g.add(velocity, alpha=self.beta) if self.nesterov else velocity

        space.update_((gradient,), accumulate, -lr, shrink, self.groups)
        return Buffer(memory.step + 1, memory.velocity)
