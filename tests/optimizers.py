"""What the tests of ZerothOrder share: a network, its loss, and what ModuleSpace and SGD make of it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from zobench import SGD, ModuleSpace, keyed, query
from zobench.optim import ZerothOrder

INPUTS = torch.linspace(-1, 1, 8 * 20).reshape(8, 20)


LABELS = torch.arange(8) % 4


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.Tanh(), nn.LayerNorm(30), nn.Linear(30, 4, bias=False)).to(dtype)


def loss_of(model: nn.Module, rows: slice = slice(None)) -> Tensor:
    inputs = INPUTS.to(next(model.parameters()).dtype)
    return functional.cross_entropy(model(inputs)[rows].float(), LABELS[rows])


def vector(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().double() for p in model.parameters()])


def stepped(
    model: nn.Module, estimator, steps: int, lr: float = 0.05, decay: float = 0.0, seed: int = 0, space_type=ModuleSpace
) -> Tensor:
    """What ModuleSpace and SGD make of it."""
    space, rule = space_type(model), SGD(lr, decay)
    state, memory = estimator.init(), rule.init(space)
    for key, _ in keyed(range(steps), seed):
        told = query(space, estimator, lambda: loss_of(model), key, state)
        memory, state = rule.apply_(space, told.gradient, memory), told.state
    return vector(model)


def taken(model: nn.Module, optimizer: ZerothOrder, steps: int) -> Tensor:
    for _ in range(steps):
        optimizer.step(lambda: loss_of(model))
    return vector(model)
