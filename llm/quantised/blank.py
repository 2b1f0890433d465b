"""Models without weights, into which layers are put one by one, so that no dense model is ever held."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def _parameters_on_meta() -> Iterator[None]:
    """The context in which modules are made with parameters that hold no numbers, and with real buffers."""
    usual = nn.Module.register_parameter

    def register(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        usual(module, name, parameter)
        if parameter is not None and not parameter.is_meta:
            module._parameters[name] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)

    nn.Module.register_parameter = register  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = usual  # type: ignore[method-assign]


def blank(make: Callable[[], Any]) -> Any:
    """Return the model that `make` makes, its parameters on the meta device and its buffers as they are.

    Cost: memory for one parameter at a time, and no time for random numbers.
    """
    with torch.random.fork_rng(devices=[]), _parameters_on_meta():
        return make().eval()


def require_filled(model: nn.Module, source: str) -> None:
    """Raise ValueError if a parameter is still without numbers."""
    missing = [name for name, p in model.named_parameters() if p.is_meta]
    if missing:
        raise ValueError(f"{source} lacks {len(missing)} tensors of the model, the first is {missing[0]}")


def put_(model: nn.Module, name: str, value: torch.Tensor) -> None:
    """Give a parameter its numbers, under every name it has."""
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    before = module._parameters[leaf]
    if before is None or before.shape != value.shape:
        raise ValueError(f"{name} is {tuple(value.shape)} in the file, but {_shape(before)} by the configuration")
    made = nn.Parameter(value)
    for other in model.modules():
        for key, parameter in other._parameters.items():
            if parameter is before:
                other._parameters[key] = made


def _shape(parameter: torch.Tensor | None) -> str:
    return "nothing" if parameter is None else str(tuple(parameter.shape))
