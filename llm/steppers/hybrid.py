"""The hybrid stepper: first order on the last blocks, zeroth order on the rest, in one step."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor

from llm.model.last_blocks import frozen
from llm.model.trainable import Tied
from llm.steppers.first_order import FirstOrderStepper
from llm.steppers.stepper import ALONE
from llm.steppers.taken import Taken
from llm.steppers.zeroth_order import ZerothOrderStepper
from zobench.run.journal import Record
from zobench.space import Shared

FIRST, ZEROTH = "first.", "zeroth."


class HybridStepper:
    """x_l <- first order along grad_l f(x), x_r <- zeroth order along g_r(x): x_l the last blocks, x_r the rest, both
    at the same x = (x_l, x_r), and both skipped where either is.

    Gradients flow through the last blocks alone: a step holds their gradients, the optimiser's memory of them and the
    activations of these blocks, beside what the zeroth-order method holds. Cost: E + 1 forward passes and the backward
    pass of the last blocks, E the loss evaluations of the zeroth-order method.

    Losses do not rebuild the half of a step that goes along a gradient: an interrupted run resumes from its latest
    checkpoint, which holds the state of both, and the header of the journal names no layout, so that a replay is
    refused. Source of the combination: Zhang et al. 2024 (ZO-Bench), arXiv 2402.11592.

    Args:
        first: takes the steps of the last blocks.
        zeroth: takes the steps of the rest; its space has no tensor of the last blocks.
        last: the tensors of the last blocks.
        rest: the other trainable tensors.
    """

    replays = False

    def __init__(
        self, first: FirstOrderStepper, zeroth: ZerothOrderStepper, last: Sequence[Tied], rest: Sequence[Tied]
    ) -> None:
        self.first, self.zeroth, self.last, self.rest = first, zeroth, list(last), list(rest)
        self.identity = f"hybrid({first.identity} on {len(last)} tensors, {zeroth.identity})"

    @property
    def steps(self) -> int:
        """Steps so far."""
        return self.zeroth.steps

    @property
    def forward_passes(self) -> int:
        """Forward passes of both halves."""
        return self.first.forward_passes + self.zeroth.forward_passes

    @property
    def backward_passes(self) -> int:
        """Backward passes through the last blocks."""
        return self.first.backward_passes

    def step(self, key: int, losses: Callable[[], Tensor], watched: bool = False) -> Taken:
        """Take one step; the losses of its record are that of the first-order half, then those of the other."""
        self.zeroth.settle()  # a pending step of the rest belongs to the point of the gradient
        with frozen(self.rest):
            loss, reason = self.first.differentiate(losses)
        if reason:
            self.first.move_(taken=False)
            return self.zeroth.skip(key, (loss,), reason)
        taken = self.zeroth.step(key, losses, watched)
        self.first.move_(taken=not taken.record.skipped)
        return taken._replace(record=taken.record._replace(losses=(loss, *taken.record.losses)))

    def replay(self, record: Record) -> Taken:
        """Raise ValueError: losses do not rebuild a step along a gradient."""
        return self.first.replay(record)

    def recall(self, record: Record) -> Taken:
        """Count a recorded step before a checkpoint, which brings weights and states."""
        loss, *others = record.losses
        self.first.recall(record._replace(losses=(loss,)))
        if not others:
            return self.zeroth.skip(record.key, (loss,), record.skipped)._replace(record=record)
        return self.zeroth.recall(record._replace(losses=tuple(others)))._replace(record=record)

    def settle(self) -> None:
        """Flush the pending step of the rest, if there is one."""
        self.zeroth.settle()

    def reading(self) -> AbstractContextManager[None]:
        """Return the context in which evaluations read the weights as steps do."""
        return self.zeroth.reading()

    def checkpoint_state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the states of both halves, under prefixes of their own."""
        tensors: dict[str, Tensor] = {}
        texts: dict[str, str] = {}
        for prefix, part in ((FIRST, self.first), (ZEROTH, self.zeroth)):
            held, told = part.checkpoint_state()
            tensors |= {prefix + name: value for name, value in held.items()}
            texts |= {prefix + name: value for name, value in told.items()}
        return tensors, texts

    def restore(self, tensors: Mapping[str, Tensor], texts: Mapping[str, str], step: int) -> None:
        """Resume at a step, from the state that `checkpoint_state` returned there."""
        for prefix, part in ((FIRST, self.first), (ZEROTH, self.zeroth)):
            part.restore(_under(prefix, tensors), _under(prefix, texts), step)

    def share(self, shared: Shared) -> None:
        """Raise ValueError: gradients are as large as the model, and ranks exchange numbers alone."""
        raise ValueError(ALONE.format(self.identity))

    def about(self) -> dict[str, Any]:
        """Return the entries of the stepper in the header of a journal: no layout, since no replay rebuilds the steps,
        and the tensors that backpropagation trains.
        """
        about = {name: value for name, value in self.zeroth.about().items() if name != "layout"}
        return {**about, "estimator": self.identity, "backpropagated": [each.name for each in self.last]}


def _under(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
