"""A rule whose steps leave the sign of scales: a scale never reaches 0 nor passes it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llm.quantised.formats import LEAST
from zobench.combination import Combination
from zobench.groups import UNIFORM, Groups
from zobench.layout import Block
from zobench.rule import UpdateRule
from zobench.space.space import Direction, Space

SHRINKS = 2.0**-20
"""The smallest factor by which one step shrinks a scale, so that rounding the step cannot take its sign."""


@dataclass(frozen=True)
class KeepSign(UpdateRule):
    """x <- s max(s x', max(least, 2^-20 s x)), s = sign(x), in the tensors `names`, x' what the inner rule steps to; in
    all others x <- x'.

    A scale of 0 stays 0: its group has no other weight than its zero point. Memory is that of the inner rule. A step is
    one sweep over the trained entries. Source: QZO (arXiv 2505.13430), which clamps its scales, all positive, at 1e-7;
    those of Q4_0 have signs.
    """

    inner: UpdateRule
    names: tuple[str, ...]
    least: float = LEAST

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight_decay", self.inner.weight_decay)
        object.__setattr__(self, "groups", self.inner.groups)

    @property
    def held(self) -> float:
        """As of the inner rule."""
        return self.inner.held

    def init(self, space: Space) -> Any:
        """Return the inner rule's memory."""
        return self.inner.init(space)

    def rate(self, memory: Any) -> float:
        """Return the inner rule's learning rate."""
        return self.inner.rate(memory)

    def skip(self, memory: Any) -> Any:
        """Return the inner rule's memory after a step that was not taken."""
        return self.inner.skip(memory)

    def apply_(self, space: Space, gradient: Combination, memory: Any) -> Any:
        """Let the inner rule step in a space that keeps signs.

        Raises:
            ValueError: the inner rule steps whole matrices.
        """
        return self.inner.apply_(_Signed(space, frozenset(self.names), self.least), gradient, memory)


class _Signed(Space):
    """A space whose element-wise steps keep signs; everything else is the other's own."""

    def __init__(self, space: Space, names: frozenset[str], least: float) -> None:
        self.space, self.names, self.least = space, names, least
        self.layout = space.layout

    def step_(
        self, combination: Combination, scale: float = 1.0, shrink: float = 0.0, groups: Groups = UNIFORM
    ) -> None:
        self.update_((combination,), lambda block, x, gradients: gradients[0], scale, shrink, groups)

    def update_(
        self,
        gradients: Sequence[Combination],
        direction: Direction,
        scale: float = 1.0,
        shrink: float = 0.0,
        groups: Groups = UNIFORM,
    ) -> None:
        def kept(block: Block, x: Tensor, drawn: Sequence[Tensor]) -> Tensor:
            factors = groups.of(block.segment)
            step = direction(block, x, drawn) * (factors.rate * scale) - x * (factors.decay * shrink)
            return step if block.segment.name not in self.names else _bounded(x, step, self.least)

        self.space.update_(gradients, kept)

    def update_whole_(self, *_: Any, **__: Any) -> None:
        raise ValueError("this rule steps whole matrices, in which signs of scales are not kept: give --rule sgd")

    def zeros(self) -> tuple[Tensor, ...]:
        return self.space.zeros()

    def losses(self, f: Any, plan: Any) -> Tensor:
        return self.space.losses(f, plan)

    def replay_(self, plan: Any) -> None:
        self.space.replay_(plan)

    def _copied(self) -> list[Tensor]:
        return self.space._copied()

    def dense(self, combination: Combination) -> Tensor:
        return self.space.dense(combination)

    def settle_(self) -> None:
        self.space.settle_()

    def unresolved_share(self, displacement: float) -> float:
        return self.space.unresolved_share(displacement)


def _bounded(x: Tensor, step: Tensor, least: float) -> Tensor:
    """The step, cut where x + step would have another sign than x or nearly none."""
    size = x.abs()
    sign = torch.where(size < least / 2, 0.0, x.sign())  # perturbing in place leaves a rounding in place of 0
    floor = torch.minimum(torch.clamp(size * SHRINKS, min=least), size)
    return torch.where(sign == 0, -x, sign * (torch.maximum(sign * (x + step), floor) - size))
