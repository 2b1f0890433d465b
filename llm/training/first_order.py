"""The first-order reference: torch's SGD and AdamW, a forward and a backward pass a step."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor, nn

from llm.training.minibatch import shares
from zobench.journal import Record
from zobench.rule import Schedule

FIRST_ORDER: dict[str, Callable[..., torch.optim.Optimizer]] = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}


class FirstOrder:
    """Takes backpropagated steps on a model; needs gradients, and for AdamW two moments, beside the weights.

    `paces` name tensors whose rate is so many times that of the others. Scalars do not rebuild such steps: an
    interrupted run continues from materialised checkpoints alone.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        rate: Schedule,
        weight_decay: float,
        paces: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        groups: dict[tuple[float, bool], list[Tensor]] = {(1.0, True): [], (1.0, False): []}
        for each, p in model.named_parameters():
            if p.requires_grad:
                groups.setdefault((paces.get(each, 1.0), p.ndim >= 2), []).append(p)
        parts = [
            {"params": tensors, "weight_decay": weight_decay if decays else 0.0, "pace": pace}
            for (pace, decays), tensors in groups.items()
        ]
        self.optimiser = FIRST_ORDER[name](parts, lr=rate(0))
        self.rate, self.identity = rate, f"{name}()"
        self.steps = self.forward_passes = self.backward_passes = 0
        self.watched, self.realised = False, None

    def step(self, key: int, losses: Callable[[], Tensor]) -> Record:
        """Take one step and return its record; it is skipped where the loss or the gradient is not finite."""
        lr, step = self.rate(self.steps), self.steps
        for group in self.optimiser.param_groups:
            group["lr"] = lr * group["pace"]
        self.optimiser.zero_grad(set_to_none=True)
        loss = self._backward(losses)
        self.forward_passes += 1
        self.steps += 1
        reason = "" if math.isfinite(loss) else f"loss {loss}: lower --lr"
        if not reason:
            self.backward_passes += 1
            reason = "" if self._finite_gradient() else "the gradient is not finite: lower --lr, or use a wider dtype"
        if reason:
            return Record(step, key, lr=lr, loss=loss, skipped=True, extra={"reason": reason})
        self.optimiser.step()
        return Record(step, key, lr=lr, loss=loss)

    def _backward(self, losses: Callable[[], Tensor]) -> float:
        """The mean loss, whose gradient is added up a part of the minibatch at a time, until one is not finite."""
        total = 0.0
        for share, mean in shares(losses):
            total += share * mean.item()
            if not math.isfinite(total):
                break
            (share * mean).backward()
        return total

    def settle(self) -> None:
        """Do nothing: no step is owed."""

    def _finite_gradient(self) -> bool:
        norms = [p.grad.norm() for group in self.optimiser.param_groups for p in group["params"] if p.grad is not None]
        return bool(torch.stack(norms).isfinite().all())

    def tensors(self) -> dict[str, Tensor]:
        """Return the optimiser's memory under names that do not depend on the order of the steps."""
        found = self.optimiser.state_dict()["state"]
        return {
            f"optimiser.{i}.{name}": v for i, memory in found.items() for name, v in memory.items() if v is not None
        }

    def restore(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Take back the memory of `tensors`, and the counts of so many steps."""
        state: dict[int, dict[str, Tensor]] = {}
        for full, value in tensors.items():
            number, name = full.removeprefix("optimiser.").split(".")
            state.setdefault(int(number), {})[name] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.steps = step
