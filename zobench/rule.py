"""Update rules: what is done with a gradient estimate. They are not part of the estimator."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from zobench.combination import Combination
from zobench.naming import require_known
from zobench.numbers import count, real, store
from zobench.space.space import Space

Memory = Any
NOT_NEGATIVE = "give 0 or a positive number"
Schedule = Callable[[int], float]


class UpdateRule(ABC):
    """The contract of an update rule x <- x - step(g, memory): memory is what its next step needs.

    `elementwise` says whether memory holds numbers for every weight: a journal of scalars cannot rebuild those.
    """

    elementwise: ClassVar[bool] = False

    @abstractmethod
    def init(self, space: Space) -> Memory:
        """Return the memory before the first step."""

    @abstractmethod
    def apply_(self, space: Space, gradient: Combination, memory: Memory) -> Memory:
        """Move the space along the gradient, in place, and return the new memory."""


@dataclass(frozen=True)
class SGD(UpdateRule):
    """x <- (1 - lr_t wd) x - lr_t g, with decoupled weight decay on the segments that decay (not on biases and norms).

    `lr` is a number or a schedule step -> number; memory is the step count. Fused by the space with its restore: no
    sweep of its own.

    Raises:
        ValueError: a learning rate or the weight decay is negative or not finite.
    """

    lr: float | Schedule
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        decay = real("weight_decay", self.weight_decay, NOT_NEGATIVE, lambda w: w >= 0)
        first = self.rate(0)
        store(self, weight_decay=decay, lr=self.lr if callable(self.lr) else first)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        lr = self.lr(step) if callable(self.lr) else self.lr
        name = f"the learning rate of step {step}" if callable(self.lr) else "lr"
        return real(name, lr, NOT_NEGATIVE, lambda rate: rate >= 0)

    def init(self, space: Space) -> int:
        """Return step 0."""
        return 0

    def apply_(self, space: Space, gradient: Combination, memory: int) -> int:
        """Take one step."""
        lr = self.rate(memory)
        space.step_(gradient, -lr, shrink=lr * self.weight_decay)
        return memory + 1


def schedule(name: str, lr: float, steps: int, warmup: int = 0) -> Schedule:
    """Return the schedule of a name: after a linear warm-up from lr / warmup to lr, with p the share of the other steps
    that are done, lr_t = lr ("constant"), lr (1 - p) ("linear") or lr (1 + cos(pi p)) / 2 ("cosine").

    Raises:
        UnknownNameError: no such schedule.
        ValueError: lr, steps or warmup is out of range.
    """
    shapes: dict[str, Callable[[float], float]] = {
        "constant": lambda t: 1.0,
        "linear": lambda t: 1.0 - t,
        "cosine": lambda t: 0.5 * (1.0 + math.cos(math.pi * t)),
    }
    require_known(name, shapes, "schedule")
    lr = real("lr", lr, NOT_NEGATIVE, lambda rate: rate >= 0)
    steps, warmup = count("steps", steps, least=None), count("warmup", warmup, least=None)
    if steps < 1 or not 0 <= warmup <= steps:
        raise ValueError(f"steps is {steps}, warmup {warmup}: give steps >= 1 and 0 <= warmup <= steps")

    def rate(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        return lr * shapes[name](min((step - warmup) / max(steps - warmup, 1), 1.0))

    return rate
