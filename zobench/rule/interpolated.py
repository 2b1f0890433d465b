"""A second copy of the weights that takes the steps, and weights that follow it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.combination import Combination
from zobench.layout import Block
from zobench.numbers import flag, real, store
from zobench.rule.rule import ScheduledRule
from zobench.rule.tensor_clip import ADVICE, tensor_norms
from zobench.space.space import Space


class Copy(NamedTuple):
    """The number of the next step, and the copy c of every segment, in the layout's order."""

    step: int
    copy: tuple[Tensor, ...]


@dataclass(frozen=True)
class Interpolated(ScheduledRule):
    """c <- (1 - lr_t wd) c - lr_t g, then x <- x + w_k (c - x), w_k = 1 - (1 - 1/b_k) (1 - 1/b_(k+1)): a second copy c
    takes the steps of SGD, and x, at which the next estimate is made, follows it.

    Step k of KerZOO's code, as reconstructed from a third-party port: probes at x <- c/b_k + (1 - 1/b_k) x, then the
    step of c, then x <- c/b_k + (1 - 1/b_k) x again. The two moves of x between one step of c and the next probes are
    one move by w_k here; at the start c = x, and the first is none. b_k is `beta`, or k where `growing`, with
    w_k = 2 / (k + 1): then x is the mean of the c_j with weights that grow as j, the accelerated scheme of Lan. For
    b_k = 100 x follows c about 50 steps behind. How the code's b_k grows is unknown.

    With `most` the step of c is clipped in each tensor as by `TensorClip`. Holds c, one number a weight, in the dtype
    of directions (float32 for 16-bit weights); a step is one sweep of its own, two with `most`.

    Raises:
        ValueError: as SGD; beta is below 1, growing is no flag, or most is not positive.
    """

    beta: float = 100.0
    growing: bool = False
    most: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        advice = "give b_k, a number from 1: x moves by 1 / b_k of its way to the copy"
        beta = real("beta", self.beta, advice, lambda beta: beta >= 1)
        most = None if self.most is None else real("most", self.most, ADVICE, lambda most: most > 0)
        store(self, beta=beta, growing=flag("growing", self.growing), most=most)

    @property
    def held(self) -> float:
        """1: the copy."""
        return 1.0

    def weight(self, step: int) -> float:
        """Return w_k of a step, counted from 0."""
        one, other = (step + 1.0, step + 2.0) if self.growing else (self.beta, self.beta)
        return 1.0 - (1.0 - 1.0 / one) * (1.0 - 1.0 / other)

    def init(self, space: Space) -> Copy:
        """Return a copy of x."""
        copy = space.zeros()
        held = _by_segment(space, copy)

        def keep(block: Block, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
            held[block.segment.name][block.start : block.stop].copy_(x)
            return torch.zeros_like(x)

        space.update_((), keep, 0.0)
        return Copy(0, copy)

    def rate(self, memory: Copy) -> float:
        """Return the learning rate of the next step."""
        return self.lr_at(memory.step)

    def apply_(self, space: Space, gradient: Combination, memory: Copy) -> Copy:
        """Take one step."""
        lr, held = self.rate(memory), _by_segment(space, memory.copy)
        norms = None if self.most is None else tensor_norms(space, gradient, self.most)

        def follow(block: Block, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
            (g,) = gradients
            rate, decay = self.groups.of(block.segment)
            factor = 1.0 if norms is None else norms.factor(block.segment.name)
            copy = held[block.segment.name][block.start : block.stop]
            copy.mul_(1.0 - lr * self.weight_decay * decay).add_(g, alpha=-lr * rate * factor)
            return copy - x

        space.update_((gradient,), follow, self.weight(memory.step))
        return Copy(memory.step + 1, memory.copy)

    def skip(self, memory: Copy) -> Copy:
        """Return the memory with the next step."""
        return memory._replace(step=memory.step + 1)


def _by_segment(space: Space, vectors: tuple[Tensor, ...]) -> dict[str, Tensor]:
    return dict(zip((s.name for s in space.layout.segments), vectors, strict=True))
