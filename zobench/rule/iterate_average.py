"""The average of the iterates beside a rule."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.combination import Combination
from zobench.groups import Groups
from zobench.layout import Block
from zobench.numbers import count, store
from zobench.rule.rule import Memory, UpdateRule
from zobench.space.space import Space


class Averaged(NamedTuple):
    """The memory of the rule, the steps taken, and the mean of x of every segment, in layout order."""

    inner: Memory
    taken: int
    mean: tuple[Tensor, ...]


@dataclass(frozen=True)
class IterateAverage(UpdateRule):
    """The steps of `rule`, and beside them the mean x_bar = (1 / k) sum_j x_(start + j), j = 1 ... k: x goes its way as
    without it, `move_` brings x to x_bar.

    Under gains that fall slower than 1 / k the mean has the noise that the best gain would leave, and needs no tuning
    of a. Holds one number a weight beside those of the rule; a step is one sweep more. Source: Polyak and Juditsky
    1992; Spall 1998, section III.B.

    Raises:
        ValueError: rule is no UpdateRule, or start is no whole number from 0.
    """

    rule: UpdateRule
    start: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.rule, UpdateRule):
            raise ValueError(
                f"rule is {self.rule!r}: give the update rule whose iterates are averaged, such as SGD(lr)"
            )
        store(self, start=count("start", self.start, "give the number of steps before the average begins", least=0))

    @property
    def weight_decay(self) -> float:  # type: ignore[override]
        """That of the rule."""
        return self.rule.weight_decay

    @property
    def groups(self) -> Groups:  # type: ignore[override]
        """Those of the rule."""
        return self.rule.groups

    @property
    def held(self) -> float:
        """One more than the rule holds."""
        return self.rule.held + 1.0

    def init(self, space: Space) -> Averaged:
        """Return the memory of the rule, and a mean of no iterates."""
        return Averaged(self.rule.init(space), 0, space.zeros())

    def rate(self, memory: Averaged) -> float:
        """Return that of the rule."""
        return self.rule.rate(memory.inner)

    def apply_(self, space: Space, gradient: Combination, memory: Averaged) -> Averaged:
        """Take the step of the rule, and average."""
        inner, taken = self.rule.apply_(space, gradient, memory.inner), memory.taken + 1
        if taken <= self.start:
            return Averaged(inner, taken, memory.mean)
        means, weight = _by_segment(space, memory), 1.0 / (taken - self.start)

        def average(block: Block, x: Tensor, gradients: Sequence[Tensor]) -> Tensor:
            means[block.segment.name][block.start : block.stop].lerp_(x, weight)
            return torch.zeros_like(x)

        space.update_((), average, 0.0)
        return Averaged(inner, taken, memory.mean)

    def skip(self, memory: Averaged) -> Averaged:
        """Return the memory of the rule after a step that was not taken; the mean stays."""
        return memory._replace(inner=self.rule.skip(memory.inner))

    def move_(self, space: Space, memory: Averaged) -> None:
        """Bring x to the mean of the iterates; before there is one, leave it."""
        if memory.taken <= self.start:
            return
        means = _by_segment(space, memory)
        space.update_((), lambda block, x, _: means[block.segment.name][block.start : block.stop] - x)
        space.settle_()


def _by_segment(space: Space, memory: Averaged) -> dict[str, Tensor]:
    return dict(zip((s.name for s in space.layout.segments), memory.mean, strict=True))
