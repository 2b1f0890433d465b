"""What rules share that average gradients: in buffers, or over a replayed window."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from zobench.combination import Combination
from zobench.numbers import count, store
from zobench.rule.rule import Memory, ScheduledRule
from zobench.rule.window import Window
from zobench.space.space import Space


class Averaging(ScheduledRule):
    """A rule that steps along averages of gradients, held in buffers; or with `window` w those of the last w gradients,
    which are scalars and keys: nothing of the model's size is held. Memory has the number of the next step.

    Raises:
        ValueError: as ScheduledRule; or window is no whole number from 1.
    """

    buffers: ClassVar[int]
    """Numbers a weight that it holds without a window."""
    window: int | None  # a field of each rule

    def __post_init__(self) -> None:
        super().__post_init__()
        advice = "give the number of steps that are replayed, from 1"
        store(self, window=None if self.window is None else count("window", self.window, advice))

    @abstractmethod
    def zero(self, space: Space) -> Memory:
        """Return the memory before the first step, without a window."""

    @abstractmethod
    def replayed_(self, space: Space, recent: Sequence[Combination], lr: float, shrink: float) -> None:
        """Take the step after these gradients, oldest first, from averages that begin at 0."""

    @abstractmethod
    def averaged_(self, space: Space, gradient: Combination, memory: Memory, lr: float, shrink: float) -> Memory:
        """Take the step after one more gradient, and return the new memory."""

    @property
    def held(self) -> float:
        """As many as `buffers`; 0 with a window."""
        return 0.0 if self.window else float(self.buffers)

    def init(self, space: Space) -> Memory:
        """Return an empty window, or averages of 0."""
        return Window() if self.window else self.zero(space)

    def rate(self, memory: Memory) -> float:
        """Return the learning rate of the next step."""
        return self.lr_at(memory.step)

    def apply_(self, space: Space, gradient: Combination, memory: Memory) -> Memory:
        """Take one step."""
        lr = self.rate(memory)
        shrink = lr * self.weight_decay
        if not isinstance(memory, Window):
            return self.averaged_(space, gradient, memory, lr, shrink)
        assert self.window is not None
        memory = memory.extended(gradient, self.window)
        self.replayed_(space, memory.recent, lr, shrink)
        return memory

    def skip(self, memory: Memory) -> Memory:
        """Return the memory with the next step."""
        return memory._replace(step=memory.step + 1)
