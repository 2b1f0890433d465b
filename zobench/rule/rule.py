"""The contract of an update rule: what is done with a gradient estimate."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from zobench.combination import Combination
from zobench.groups import UNIFORM, Groups
from zobench.numbers import real, store
from zobench.rule.schedule import NOT_NEGATIVE, Schedule
from zobench.space.space import Space

Memory = Any
"""What the next step of a rule needs."""


class UpdateRule(ABC):
    """The contract of an update rule x <- x - step(g, memory): memory is what its next step needs.

    Training, replay, optimizers and scipy step through `apply_` alone. Memory is a number, or a dataclass or named
    tuple of numbers, tensors and combinations, so that every file of a run can keep it (`zobench.state`). Rules are no
    part of the estimator, and know nothing of losses. `weight_decay` and `groups` are what they apply of both.
    """

    weight_decay: float = 0.0
    groups: Groups = UNIFORM
    at_most: ClassVar[bool] = False
    """Whether `held` is a bound: what memory holds depends on shapes and on the law."""

    @property
    def held(self) -> float:
        """Numbers that memory holds for each weight, beside the model."""
        return 0.0

    @abstractmethod
    def init(self, space: Space) -> Memory:
        """Return the memory before the first step."""

    @abstractmethod
    def rate(self, memory: Memory) -> float:
        """Return the learning rate of the step that is next."""

    @abstractmethod
    def apply_(self, space: Space, gradient: Combination, memory: Memory) -> Memory:
        """Move the space along the gradient, in place, and return the new memory; the old one is not used again."""

    @abstractmethod
    def skip(self, memory: Memory) -> Memory:
        """Return the memory after a step that was not taken: the schedule goes on, the rest stays."""


@dataclass(frozen=True)
class ScheduledRule(UpdateRule):
    """A rule x <- (1 - lr_t wd) x - lr_t step with a learning rate lr_t, a number or a schedule step -> number, and
    decoupled weight decay wd by `groups`.

    Raises:
        ValueError: a learning rate or the weight decay is negative or not finite.
    """

    lr: float | Schedule
    weight_decay: float = 0.0
    groups: Groups = UNIFORM

    def __post_init__(self) -> None:
        decay = real("weight_decay", self.weight_decay, NOT_NEGATIVE, lambda w: w >= 0)
        first = self.lr_at(0)
        store(self, weight_decay=decay, lr=self.lr if callable(self.lr) else first)

    def lr_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        lr = self.lr(step) if callable(self.lr) else self.lr
        name = f"the learning rate of step {step}" if callable(self.lr) else "lr"
        return real(name, lr, NOT_NEGATIVE, lambda rate: rate >= 0)


class Memoryless(ScheduledRule):
    """A rule x <- (1 - lr_t wd) x - lr_t step(g) that remembers no gradient: memory is the number of the next step."""

    def init(self, space: Space) -> int:
        """Return step 0."""
        return 0

    def rate(self, memory: int) -> float:
        """Return the learning rate of step `memory`."""
        return self.lr_at(memory)

    def skip(self, memory: int) -> int:
        """Return the next step."""
        return memory + 1
