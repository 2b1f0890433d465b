"""The contract of a stepper, which takes the steps of a run."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from torch import Tensor

from llm.steppers.taken import Taken
from zobench.run.journal import Record
from zobench.space import Shared

ALONE = (
    "{} takes steps along gradients, which are as large as the model, while the processes of torchrun exchange losses "
    "alone: start the command without torchrun, or give a zeroth-order --method"
)


class Stepper(Protocol):
    """Takes steps on a model, and counts steps, forward passes and backward passes.

    `identity` is its name in rows. `replays` is true if the losses of a step rebuild it; if not, an interrupted run
    resumes from its latest checkpoint.
    """

    identity: str
    replays: bool

    @property
    def steps(self) -> int:
        """Steps so far."""

    @property
    def forward_passes(self) -> int:
        """Forward passes of the steps so far."""

    @property
    def backward_passes(self) -> int:
        """Backward passes of the steps so far."""

    def step(self, key: int, losses: Callable[[], Tensor], watched: bool = False) -> Taken:
        """Take one step; a step that would make a weight infinite or NaN is skipped, and its record gives the reason.
        A watched step is compared with the intended one.
        """

    def replay(self, record: Record) -> Taken:
        """Repeat a recorded step without a forward pass; the weights are bit-identical.

        Raises:
            ValueError: losses do not rebuild such steps, or the record is not one of this stepper.
        """

    def recall(self, record: Record) -> Taken:
        """Count a recorded step and leave the weights as they are: for the steps before a checkpoint."""

    def settle(self) -> None:
        """Flush the pending step, if there is one: the weights are then those after `steps` steps."""

    def reading(self) -> AbstractContextManager[None]:
        """Return the context in which evaluations read the weights as steps do."""

    def checkpoint_state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the state that a checkpoint holds in addition to the weights: tensors by name, and texts."""

    def restore(self, tensors: Mapping[str, Tensor], texts: Mapping[str, str], step: int) -> None:
        """Resume at a step, from the state that `checkpoint_state` returned there."""

    def share(self, shared: Shared) -> None:
        """Take steps together with other ranks from now on.

        Raises:
            ValueError: the steps of this method are not shared out.
        """

    def about(self) -> dict[str, Any]:
        """Return the entries of the stepper in the header of a journal."""
