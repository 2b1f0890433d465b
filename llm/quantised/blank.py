"""Models without weights, into which layers are put one by one, so that no dense model is ever held."""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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


def require_filled(model: nn.Module, source: str, coming: Container[int] = ()) -> None:
    """Raise ValueError if a parameter is still without numbers, but for those of the identities in `coming`."""
    missing = [name for name, p in model.named_parameters() if p.is_meta and id(p) not in coming]
    if missing:
        raise ValueError(f"{source} lacks {len(missing)} tensors of the model, the first is {missing[0]}")


def put_(model: nn.Module, name: str, value: Tensor) -> None:
    """Give a parameter its numbers, under every name it has."""
    before = require_shape(model, name, value.shape)
    replace_tensors_(model, {id(before): nn.Parameter(value)})


def require_shape(model: nn.Module, name: str, shape: Sequence[int]) -> nn.Parameter:
    """Return the parameter of a name.

    Raises:
        ValueError: it has not this shape, which a file gives it, or there is none.
    """
    owner, _, leaf = name.rpartition(".")
    found = model.get_submodule(owner)._parameters.get(leaf)
    if found is None or tuple(found.shape) != tuple(shape):
        known = "nothing" if found is None else str(tuple(found.shape))
        raise ValueError(f"{name} is {tuple(shape)} in the file, but {known} by the configuration")
    return found


def replace_tensors_(model: nn.Module, new: Mapping[int, Any]) -> None:
    """Put tensors in the place of those of these identities, wherever the model holds them."""
    for module in model.modules():
        for held in (module._parameters, module._buffers):
            held.update({name: new[id(tensor)] for name, tensor in held.items() if id(tensor) in new})
