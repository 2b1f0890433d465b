"""Steps whose part in each tensor is bounded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.combination import Combination
from zobench.groups import Groups
from zobench.layout import Block, Layout
from zobench.numbers import real, store
from zobench.rule.rule import Memoryless
from zobench.space.space import Space

ADVICE = "give the largest norm of the estimate in one tensor, a positive number"


class Norms(NamedTuple):
    """|g_l| of every tensor l by its name, and the bound."""

    of: Mapping[str, float]
    most: float

    def factor(self, name: str) -> float:
        """Return min(1, most / |g_l|), which brings g_l to a norm of at most the bound."""
        norm = self.of[name]
        return self.most / norm if norm > self.most else 1.0


def tensor_norms(space: Space, gradient: Combination, most: float) -> Norms:
    """Return |g_l| for the entries g_l of the estimate in each tensor l. Cost: one sweep, which draws every direction.

    Squares are summed by blocks in float64, in the layout's order, so that threads change no bit of them.
    """
    squares: dict[tuple[str, int], Tensor] = {}

    def see(block: Block, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
        (g,) = gradients
        squares[block.segment.name, block.start] = g.double().square().sum()
        return torch.zeros_like(x)

    space.update_((gradient,), see, 0.0)
    sums = torch.stack([squares[block.segment.name, block.start] for block in space.layout.blocks]).tolist()
    total = dict.fromkeys((s.name for s in space.layout.segments), 0.0)
    for block, square in zip(space.layout.blocks, sums, strict=True):
        total[block.segment.name] += square
    return Norms({name: square**0.5 for name, square in total.items()}, most)


@dataclass(frozen=True)
class TensorClip(Memoryless):
    """x_l <- (1 - lr_t wd) x_l - lr_t min(1, most / |g_l|) g_l in each tensor l: SGD whose step in no tensor is longer
    than lr_t most.

    The bound is on a norm that grows with the tensor, |g_l| ~ |slope| sqrt(d_l): 4e5 bounds the slope to 35 in the
    embedding of OPT-2.7B (d_l = 1.3e8) and to 790 in one of 256,000 entries. Memory is the step count; a step is one
    sweep more. Source: a third-party port of KerZOO's code, bound 4e5.

    Raises:
        ValueError: a learning rate or the weight decay is negative or not finite, or most is not positive.
    """

    most: float = 4e5

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, most=real("most", self.most, ADVICE, lambda most: most > 0))

    def apply_(self, space: Space, gradient: Combination, memory: int) -> int:
        """Take one step."""
        lr = self.rate(memory)
        norms = tensor_norms(space, gradient, self.most)
        space.step_(gradient, -lr, lr * self.weight_decay, clipped(self.groups, space.layout, norms))
        return memory + 1


def clipped(groups: Groups, layout: Layout, norms: Norms) -> Groups:
    """Return the groups with the multiplier of each tensor beyond the bound times its factor; weight decay stays."""
    beyond = [segment for segment in layout.segments if norms.factor(segment.name) < 1]
    rates, decays = dict(groups.multipliers), dict(groups.decay_multipliers)
    for segment in beyond:
        rate, decay = groups.of(segment)
        rates[segment.name] = rate * norms.factor(segment.name)
        decays[segment.name] = decay / rates[segment.name] if rate else 0.0
    return replace(groups, multipliers=rates, decay_multipliers=decays)
