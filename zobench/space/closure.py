"""What a loss function returns, as a number; and whether it returns the same again."""

from collections.abc import Callable, Sequence
from numbers import Complex, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.space.slope import value_and_slope

Value = float | Tensor
"""A loss: a number, or a tensor of one number that nobody has read yet."""


def evaluate(f: Callable[[], Any]) -> float:
    """Return f() as a number: per-example losses, a tensor or an array, are averaged in float32 or better.

    Raises:
        TypeError: f returned no real number or numbers (None, a tuple, a model's output), or none at all.
    """
    return float(queue(f))


def queue(f: Callable[[], Any]) -> Value:
    """Return what `evaluate` does; a tensor as one that is not read, so that a device may still be computing it."""
    torch.clear_autocast_cache()  # under autocast f would go on reading weights as they were cast before they moved
    with torch.no_grad():
        value = _mean(f())
        return value if isinstance(value, Tensor) else float(value)


def each_value(f: Callable[[], Any]) -> Tensor:
    """Return what f() returns, a number or one for each example, as a vector in float32 or better, whose mean is that
    of `evaluate`.
    """
    torch.clear_autocast_cache()
    with torch.no_grad():
        return _vector(f())


def losses_and_slopes(f: Callable[[], Any]) -> list[Tensor]:
    """Return the vectors of which `loss_and_slope` are the means; call it under `dual_numbers`."""
    torch.clear_autocast_cache()
    return list(value_and_slope(lambda: _vector(f())))


def read(values: Sequence[Value]) -> list[float]:
    """Return losses as numbers. All tensors are read at once: the host waits for a device one time, not once a loss."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    numbers = iter(torch.stack([t.to(tensors[0].device) for t in tensors]).tolist() if tensors else ())
    return [next(numbers) if isinstance(value, Tensor) else float(value) for value in values]


def loss_and_slope(f: Callable[[], Any]) -> list[float]:
    """Return f() and its tangent as numbers, a tensor averaged in float32 or better; call it under `dual_numbers`."""
    torch.clear_autocast_cache()
    return read(value_and_slope(lambda: _mean(f())))


def require_reproducible(f: Callable[[], Any]) -> float:
    """Call f twice and return its value, if both agree: |f_1 - f_2| <= 1e-5 max(|f_1|, |f_2|). Cost: 2 losses.

    Raises:
        ValueError: they differ, so that a difference of losses would measure the closure's own randomness.
    """
    first, second = evaluate(f), evaluate(f)
    if abs(first - second) > 1e-5 * max(abs(first), abs(second)):
        raise ValueError(
            f"the loss gave {first!r} and then {second!r} at the same parameters: dropout left on (call "
            "model.eval()), or a minibatch drawn inside the closure (draw it outside, once a step)"
        )
    return first


def _mean(value: Any) -> Any:
    """A number as it is; the mean of a tensor or an array, in float32 or better."""
    checked = _wide(value)
    return checked.mean() if isinstance(checked, Tensor) else checked


def _vector(value: Any) -> Tensor:
    """A number, a tensor or an array as a vector, in float32 or better."""
    checked = _wide(value)
    if isinstance(checked, Tensor):
        return checked.flatten()
    return torch.tensor([float(checked)], dtype=torch.float64, device=CPU)


def _wide(value: Any) -> Any:
    """A number as it is; a tensor or an array as a tensor in float32 or better."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(np.asarray(value, dtype=np.float64))
    if isinstance(value, Tensor):
        if value.is_complex() or value.is_meta or value.numel() == 0:
            what = "a loss on the meta device" if value.is_meta else f"{value.dtype} of shape {tuple(value.shape)}"
            raise TypeError(f"the loss function returned {what}: return a real number, or one for each example")
        value = value.to_dense() if value.layout != torch.strided else value
        is_narrow = value.is_floating_point() and value.dtype != torch.float64
        return value.float() if is_narrow else value.double()
    is_complex = isinstance(value, Complex) and not isinstance(value, Real)
    if is_complex or isinstance(value, str) or not hasattr(type(value), "__float__") or isinstance(value, np.ndarray):
        raise TypeError(f"the loss function returned {_described(value)}: {_way_out(value)}")
    return value


def _described(value: Any) -> str:
    kind = type(value).__name__
    if value is None:
        return "None"
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype}"
    if isinstance(value, str | complex):
        return f"{kind} {value!r}"
    if isinstance(value, tuple | list):
        return f"a {kind} of {len(value)}"
    return f"a dict with the keys {list(value)[:5]}" if isinstance(value, dict) else f"a {kind}"


def _way_out(value: Any) -> str:
    if value is None:
        return "end it with `return loss`"
    if isinstance(value, dict) and "loss" in value and not hasattr(value, "loss"):
        return "return its ['loss'] alone"
    if getattr(value, "loss", None) is not None:
        return "return its .loss alone"
    if isinstance(value, tuple | list) and value:
        return "return the loss alone, a number or a tensor; of one loss for each example, torch.stack of them"
    return "return the loss, a number or a tensor"
