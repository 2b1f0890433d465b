"""The losses of a minibatch, with so many of its examples through the model at once."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from llm.objective import Encoded, Objective
from zobench.distributed import slice_of

EVALUATED = 64
"""Largest number of examples in one forward pass of an evaluation."""


def at_once(size: int | None) -> int:
    """Return how many examples of an evaluation go through the model at once where parts have `size` examples."""
    return min(EVALUATED, size or EVALUATED)


class Minibatch:
    """The losses of examples, `size` of them at once (None: all); the last part has what is left.

    Called, it gives all losses (examples,), whose mean is that of the whole whatever the parts: the memory of a forward
    pass is that of one part, and an evaluation counts as one, in however many parts. Engines that perturb parameters
    where they are read draw them once a part.
    """

    def __init__(self, objective: Objective, examples: Sequence[Encoded], size: int | None = None) -> None:
        self.objective, self.examples, self.size = objective, examples, size or len(examples)

    def __call__(self) -> Tensor:
        return torch.cat([self.objective.losses(part) for part in self._parts()])

    def shares(self) -> Iterator[tuple[float, Tensor]]:
        """Yield the share of each part's examples and its mean loss: the whole's mean is the sum of the products."""
        for part in self._parts():
            yield len(part) / len(self.examples), self.objective.losses(part).mean()

    def slice(self, count: int, index: int) -> "Minibatch":
        """Return slice `index` of `count` contiguous ones: whole parts where there are enough of them, else smaller
        parts, one a slice. All slices together have the losses of the minibatch in these parts, to the bit.

        Raises:
            ValueError: there are not enough examples.
        """
        size = self.size if -(-len(self.examples) // self.size) >= count else -(-len(self.examples) // count)
        parts = -(-len(self.examples) // size)
        if parts < count:
            raise ValueError(
                f"{len(self.examples)} examples in parts of {size} are {parts} parts, but {count} processes share "
                f"them: give a --batch that is a multiple of {count}, or other --ranks"
            )
        mine = slice_of(parts, count, index)
        return Minibatch(self.objective, self.examples[mine.start * size : mine.stop * size], size)

    def _parts(self) -> Iterator[Sequence[Encoded]]:
        for first in range(0, len(self.examples), self.size):
            yield self.examples[first : first + self.size]


def shares(losses: Callable[[], Tensor]) -> Iterator[tuple[float, Tensor]]:
    """Yield shares and mean losses of the parts of a minibatch, or of any other losses at once."""
    if isinstance(losses, Minibatch):
        yield from losses.shares()
    else:
        yield 1.0, losses().mean()
