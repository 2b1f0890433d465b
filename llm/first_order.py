"""The first-order reference: torch's SGD and AdamW, a forward and a backward pass a step."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from zobench.records import Row
from zobench.rule import Schedule

FIRST_ORDER: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}


class FirstOrder:
    """Takes backpropagated steps on a model; needs gradients, and for AdamW two moments, beside the weights."""

    def __init__(self, model: nn.Module, name: str, rate: Schedule, weight_decay: float) -> None:
        decayed = [p for p in model.parameters() if p.requires_grad and p.ndim >= 2]
        kept = [p for p in model.parameters() if p.requires_grad and p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
        self.optimiser = FIRST_ORDER[name](groups, lr=rate(0))
        self.rate, self.identity = rate, f"{name}()"
        self.steps = self.forward_passes = self.backward_passes = 0

    def step(self, key: int, losses: Callable[[], Tensor]) -> Row:
        """Take one step and return its row.

        Raises:
            FloatingPointError: the loss is not finite; the weights are those before the step.
        """
        lr = self.rate(self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = lr
        loss = losses().mean()
        self.forward_passes += 1
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"loss {loss.item()} at step {self.steps}: lower --lr")
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.backward_passes += 1
        self.optimiser.step()
        self.steps += 1
        return {"train_loss": loss.item(), "lr": lr}

    def replay(self, rows: list[Row]) -> int:
        """Return 0: backpropagated steps cannot be taken again from scalars, so a continued run repeats them."""
        return 0
