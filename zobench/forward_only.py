"""A closure written for first-order loops, evaluated without gradients of the parameters."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Closure = Callable[[], Any]

NEEDS_A_GRAPH = "does not require grad"


class ForwardOnly:
    """Calls closures as they need: without a graph; if torch refuses that, since one calls backward, with a backward
    that does nothing; and if that is refused too, since one differentiates by its inputs, with a graph of the inputs
    alone. What one of them needed, the next is given at once.
    """

    def __init__(self) -> None:
        self._need = 0

    def __call__(self, closure: Closure, parameters: Sequence[nn.Parameter]) -> Any:
        """Return closure(); these parameters are constants in its graph, if it has one.

        Raises:
            ValueError: the closure differentiates by something that does not depend on a tensor that requires a
                gradient, such as by these parameters.
        """
        while True:
            try:
                return self._call(closure, parameters)
            except RuntimeError as error:
                if NEEDS_A_GRAPH not in str(error):
                    raise
                if self._need == 2:
                    raise ValueError(
                        f"the closure asks torch for a derivative that it does not have here ({error}): parameters are "
                        "constants in a zeroth-order step; derivatives by inputs need inputs.requires_grad_() in the "
                        "closure, derivatives by parameters need `with torch.enable_grad():` and torch.func"
                    ) from error
                self._need += 1

    def _call(self, closure: Closure, parameters: Sequence[nn.Parameter]) -> Any:
        if self._need == 0:
            return closure()
        with _NoBackward():
            if self._need == 1:
                return closure()
            with _constant(parameters), torch.enable_grad():
                return closure()


class _NoBackward(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        return None if func in (Tensor.backward, torch.autograd.backward) else func(*args, **(kwargs or {}))


@contextmanager
def _constant(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Let these parameters require no gradient meanwhile, so that a graph is one of the inputs alone."""
    trainable = [p for p in parameters if p.requires_grad]
    try:
        for p in trainable:
            p.requires_grad_(False)
        yield
    finally:
        for p in trainable:
            p.requires_grad_(True)
