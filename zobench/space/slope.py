"""The loss and its derivative along a direction, in one pass of forward-mode differentiation."""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel

from zobench.layout import CPU

_LEVEL = threading.Lock()  # torch has one level of dual numbers for all threads


@contextmanager
def dual_numbers() -> Iterator[None]:
    """Let tensors carry tangents, one thread at a time. Attention is computed by the one implementation that passes
    them on.
    """
    with _LEVEL, torch.no_grad(), forward_ad.dual_level(), sdpa_kernel(SDPBackend.MATH):
        _first_dual()
        fast = mha.get_fastpath_enabled()
        mha.set_fastpath_enabled(False)
        try:
            yield
        finally:
            mha.set_fastpath_enabled(fast)


@cache
def _first_dual() -> None:
    """Let torch warn in vain of its own use of torch.jit, which it imports with the first dual number."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        zero = torch.zeros((), dtype=torch.float32, device=CPU)
        dual(zero, zero.clone())


def dual(primal: Tensor, tangent: Tensor) -> Tensor:
    """Return the primal, carrying the tangent."""
    return forward_ad.make_dual(primal, tangent)  # type: ignore[no-any-return]


def value_and_slope(f: Callable[[], Any]) -> tuple[Tensor, Tensor]:
    """Return f() and its tangent; call it under `dual_numbers`.

    Raises:
        ValueError: f() is no tensor, or has no tangent: what it computes torch does not differentiate forward.
    """
    try:
        value = f()
    except NotImplementedError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"the loss cannot be differentiated forward ({reason}): {_WAY_OUT}") from error
    if not isinstance(value, Tensor):
        raise ValueError(f"the loss is {value!r}, of which torch knows no derivative: {_WAY_OUT}")
    primal, tangent = forward_ad.unpack_dual(value)
    if tangent is None:
        raise ValueError(f"the loss has no derivative along the parameters that torch knows of: {_WAY_OUT}")
    return primal, tangent


_WAY_OUT = (
    "compute it from the parameters by differentiable operations of torch, without detach, item, numpy or "
    "inference_mode; or take a method that needs losses alone, such as mezo"
)
