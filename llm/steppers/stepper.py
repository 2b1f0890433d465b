"""The contract of what takes the steps of a run."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from llm.steppers.taken import Taken
from zobench.run.journal import Record


class Stepper(Protocol):
    """Takes steps on a model, and counts them and what they cost.

    `identity` is what rows call it. `replays` says whether the losses of a step rebuild it; where they do not, an
    interrupted run goes on from its latest checkpoint.
    """

    identity: str
    replays: bool
    steps: int
    forward_passes: int
    backward_passes: int

    def step(self, key: int, losses: Callable[[], Tensor], watched: bool = False) -> Taken:
        """Take one step; a step that would put into the weights what is not finite is skipped, and its record says
        why. A watched step says what rounding left of it.
        """

    def replay(self, record: Record) -> Taken:
        """Repeat a recorded step without a forward pass, to the bit.

        Raises:
            ValueError: losses do not rebuild such steps, or the record is not one of this stepper.
        """

    def recall(self, record: Record) -> Taken:
        """Count a recorded step and leave the weights as they are: for the steps before a checkpoint."""

    def settle(self) -> None:
        """Write the step that is pending, if one is: the weights are then those after `steps` steps."""

    def reading(self) -> AbstractContextManager[None]:
        """Return the context in which evaluations read the weights as steps do."""

    def checkpoint_state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return what a checkpoint keeps beside the weights: tensors by name, and texts."""

    def restore(self, tensors: Mapping[str, Tensor], texts: Mapping[str, str], step: int) -> None:
        """Go on at a step with what `checkpoint_state` returned there."""

    def about(self) -> dict[str, Any]:
        """Return what the header of a journal says of the stepper."""
