"""Heavy-ball momentum, with a buffer or as a replayed window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from zobench.combination import Combination
from zobench.layout import Block
from zobench.numbers import store
from zobench.rule.rule import Memory, ScheduledRule
from zobench.rule.window import Window, factor, window_of
from zobench.space.space import Space


class Buffer(NamedTuple):
    """The number of the next step, and v of every segment, in the layout's order."""

    step: int
    velocity: tuple[Tensor, ...]


@dataclass(frozen=True)
class Momentum(ScheduledRule):
    """v_t = beta v_(t-1) + g_t, x <- (1 - lr_t wd) x - lr_t v_t: SGD with heavy-ball momentum, v_0 = 0.

    With `window` w nothing of the model's size is held: v_t is the sum of beta^j g_(t-j) over the last w steps, whose
    directions are drawn again, w n of them a step; what is left out is beta^w of the velocity. Without it v is held,
    one number a weight. Source: Polyak 1964; the form is that of torch.optim.SGD.

    Raises:
        ValueError: as SGD; beta is not in [0, 1), or window is no whole number from 1.
    """

    beta: float = 0.9
    window: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, beta=factor("beta", self.beta), window=window_of(self.window))

    @property
    def held(self) -> float:
        """1 with a buffer, 0 with a window."""
        return 0.0 if self.window else 1.0

    def init(self, space: Space) -> Memory:
        """Return v = 0."""
        return Window() if self.window else Buffer(0, space.zeros())

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
            past = enumerate(reversed(memory.recent))
            velocity = sum((self.beta**age * g for age, g in past), Combination())
            space.step_(velocity, -lr, shrink, self.groups)
            return memory
        held = dict(zip((s.name for s in space.layout.segments), memory.velocity, strict=True))

        def accumulate(block: Block, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
            (g,) = gradients
            velocity: Tensor = held[block.segment.name][block.start : block.stop]
            return velocity.mul_(self.beta).add_(g)

        space.update_((gradient,), accumulate, -lr, shrink, self.groups)
        return Buffer(memory.step + 1, memory.velocity)

    def skip(self, memory: Memory) -> Memory:
        """Return the memory with the next step."""
        return memory._replace(step=memory.step + 1)
