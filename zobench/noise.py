"""Noise of evaluations: what is seen of f where its values are not exact.

A model of noise stands between a space and its function. Its draws are keyed by the plan, so they depend on neither the
order of evaluation nor the threads, and one evaluation that several lines share carries one error.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zobench.layout import CPU, Layout
from zobench.numbers import real, store
from zobench.plan import CURRENT, SLOPE, Plan
from zobench.random import streams
from zobench.random.keys import derive
from zobench.random.streams import Shape
from zobench.space.flat import FlatSpace
from zobench.space.space import Functions

Function = Callable[[Tensor], Tensor]
Evaluate = Callable[[Function, Plan], Tensor]
"""What looks without noise: a function and a plan -> losses (*batch, n, m)."""


class NoiseModel(ABC):
    """How evaluations of f are disturbed, y = f(x) + error; its repr is its identity in result rows."""

    @abstractmethod
    def losses(self, evaluate: Evaluate, f: Function, plan: Plan) -> Tensor:
        """Return the disturbed losses of the plan's points, float64 (*batch, n, m); `evaluate` looks without noise."""

    @abstractmethod
    def deviation(self, f: Any, x: Tensor) -> float:
        """Return the standard deviation of one evaluation at x (d,), over the noise."""


@dataclass(frozen=True)
class Additive(NoiseModel):
    """f(x) + scale xi, xi ~ N(0, 1) independent at each evaluation; slopes are exact, as xi does not depend on x.

    Raises:
        ValueError: scale is negative or not finite.
    """

    scale: float

    def __post_init__(self) -> None:
        advice = "give a standard deviation, 0 or more, or a model of noise"
        store(self, scale=real("noise", self.scale, advice, lambda s: s >= 0))

    def losses(self, evaluate: Evaluate, f: Function, plan: Plan) -> Tensor:
        """Return the losses with independent errors."""
        answers = evaluate(f, plan)
        losses = answers[..., :1] if plan.asks == SLOPE else answers
        losses.add_(errors(plan)[..., : losses.shape[-1]].to(losses), alpha=self.scale)
        return answers

    def deviation(self, f: Any, x: Tensor) -> float:
        """Return `scale`."""
        return self.scale


class NoisySpace(FlatSpace):
    """A flat space whose evaluations pass through a model of noise: y = f(x) + error."""

    def __init__(self, x: Tensor, noise: NoiseModel, layout: Layout | None = None) -> None:
        super().__init__(x, layout)
        self.noise = noise

    def losses(self, f: Functions, plan: Plan) -> Tensor:
        """Return the disturbed values of f at the plan's points, float64 (*batch, n, m); errors as FlatSpace."""
        return self.noise.losses(super().losses, plan.function(f), replace(plan, closure=CURRENT))


def as_model(noise: float | NoiseModel) -> NoiseModel | None:
    """Return the model of noise, None where there is no noise; a number is the standard deviation of Additive.

    Raises:
        ValueError: the number is negative or not finite.
    """
    if isinstance(noise, NoiseModel):
        return noise
    model = Additive(noise)
    return model if model.scale else None


def errors(plan: Plan) -> Tensor:
    """Return independent xi ~ N(0, 1) for the plan's evaluations, float64 (*batch, n, m), one for all nodes at the base
    point; where slopes are asked for, one for the pass of each line.
    """
    if plan.asks == SLOPE:
        return _draw(plan, "noise", (*plan.offsets.shape[:-1], 1)).expand(plan.offsets.shape)
    drawn = _draw(plan, "noise", tuple(plan.offsets.shape))
    for i, row in enumerate(plan.is_base):
        for k, is_base in enumerate(row):
            if is_base:
                drawn[..., i, k] = _draw(plan, "base noise", plan.batch)
    return drawn


def _draw(plan: Plan, name: str, shape: Shape) -> Tensor:
    return streams.normal(derive(plan.key, name), shape, torch.float64, CPU)
