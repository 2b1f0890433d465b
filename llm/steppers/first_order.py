"""The first-order reference: torch's SGD and AdamW, a forward and a backward pass a step."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from llm.objective.minibatch import shares
from llm.steppers.stepper import ALONE
from llm.steppers.taken import Taken
from zobench.groups import UNIFORM, Groups, decays
from zobench.rule import Schedule
from zobench.run.journal import Record
from zobench.space import Shared

FIRST_ORDER: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}


HYBRID = "hybrid"


def backpropagates(method: str) -> bool:
    """Return whether a text spells a method with backpropagation, so that losses do not rebuild its steps; any other
    text, from a file of others too, spells none.
    """
    return method in FIRST_ORDER or method.partition(":")[0] == HYBRID


class FirstOrderStepper:
    """Takes backpropagated steps on a model; holds gradients, and for AdamW two moments, beside the weights.

    Losses do not rebuild such steps: an interrupted run resumes from checkpoints alone.

    Args:
        model: the module whose trainable parameters are stepped.
        name: "sgd" or "adamw".
        rate: step -> learning rate.
        weight_decay: decoupled for AdamW; biases and norms have none.
        groups: learning-rate multipliers by the names of tensors.
    """

    replays = False

    def __init__(
        self,
        model: nn.Module,
        name: str,
        rate: Schedule,
        weight_decay: float,
        groups: Groups = UNIFORM,
    ) -> None:
        members: dict[tuple[float, bool], list[Tensor]] = {(1.0, True): [], (1.0, False): []}
        for each, p in model.named_parameters():
            if p.requires_grad:
                kind = (groups.multipliers.get(each, 1.0), decays(each, p.ndim))
                members.setdefault(kind, []).append(p)
        parts = [
            {"params": tensors, "weight_decay": weight_decay if decaying else 0.0, "multiplier": multiplier}
            for (multiplier, decaying), tensors in members.items()
        ]
        self.optimiser = FIRST_ORDER[name](parts, lr=rate(0))
        self.rate, self.identity = rate, f"{name}()"
        self.steps = self.forward_passes = self.backward_passes = 0

    def step(self, key: int, losses: Callable[[], Tensor], watched: bool = False) -> Taken:
        """Take one step; it is skipped where the loss or the gradient is not finite."""
        lr, step = self.rate(self.steps), self.steps
        loss, reason = self.differentiate(losses)
        self.move_(taken=not reason)
        return Taken(Record(step, key, (loss,), lr, skipped=reason), loss)

    def differentiate(self, losses: Callable[[], Tensor]) -> tuple[float, str]:
        """Compute the mean loss and its gradient; return the loss, and why no step along the gradient may be taken, or
        an empty text.
        """
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._backward(losses)
        self.forward_passes += 1
        if not math.isfinite(loss):
            return loss, f"loss {loss}: lower --lr"
        self.backward_passes += 1
        return loss, "" if self._finite_gradient() else "the gradient is not finite: lower --lr, or use a wider dtype"

    def move_(self, taken: bool = True) -> None:
        """Step along the gradient that `differentiate` computed, or leave the weights; count the step."""
        lr = self.rate(self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["multiplier"]
        if taken:
            self.optimiser.step()
        self.steps += 1

    def replay(self, record: Record) -> Taken:
        """Raise ValueError: losses do not rebuild a step along a gradient."""
        raise ValueError(
            f"step {record.step}: {self.identity} takes gradient steps, which recorded losses cannot rebuild"
        )

    def recall(self, record: Record) -> Taken:
        """Count a recorded step before a checkpoint; the weights and the optimiser do not change."""
        (loss,) = record.losses
        self.forward_passes += 1
        self.backward_passes += math.isfinite(loss)
        self.steps += 1
        return Taken(record, loss)

    def _backward(self, losses: Callable[[], Tensor]) -> float:
        """The mean loss; the gradients of the micro-batches are added up until a loss is not finite."""
        total = 0.0
        for share, mean in shares(losses):
            total += share * mean.item()
            if not math.isfinite(total):
                break  # the step is skipped: further backward passes would be wasted
            (share * mean).backward()
        return total

    def settle(self) -> None:
        """Do nothing: no step is pending."""

    def reading(self) -> AbstractContextManager[None]:
        """Return the context of evaluations, which read the weights as they are."""
        return nullcontext()

    def share(self, shared: Shared) -> None:
        """Raise ValueError: gradients are as large as the model, and ranks exchange numbers alone."""
        raise ValueError(ALONE.format(self.identity))

    def about(self) -> dict[str, Any]:
        """Return the entries of the stepper in the header of a journal."""
        return {"estimator": self.identity, "engine": "plain"}

    def _finite_gradient(self) -> bool:
        norms = [p.grad.norm() for group in self.optimiser.param_groups for p in group["params"] if p.grad is not None]
        return bool(torch.stack(norms).isfinite().all())

    def checkpoint_state(self) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Return the state that a checkpoint holds in addition to the weights: the optimiser's memory under names that
        do not depend on the order of the steps, and the passes so far.
        """
        moments = self.optimiser.state_dict()["state"]
        tensors = {
            f"optimiser.{i}.{name}": v for i, memory in moments.items() for name, v in memory.items() if v is not None
        }
        return tensors, {"passes": f"{self.forward_passes} {self.backward_passes}"}

    def restore(self, tensors: Mapping[str, Tensor], texts: Mapping[str, str], step: int) -> None:
        """Resume at a step, from the state that `checkpoint_state` returned there."""
        self.forward_passes, self.backward_passes = map(int, texts["passes"].split())
        state: dict[int, dict[str, Tensor]] = {}
        for full, value in tensors.items():
            number, name = full.removeprefix("optimiser.").split(".")
            state.setdefault(int(number), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.steps = step
