"""Numbers that callers give, as Python's own: one rule for NumPy's, torch's and the standard library's."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

FAILURES = (TypeError, ValueError, OverflowError, RuntimeError)


def real(
    name: str,
    value: Any,
    advice: str = "give a finite number",
    holds: Callable[[float], bool] | None = None,
    finite: bool = True,
) -> float:
    """Return the value as a float whose repr is a literal: 1, 1.0, np.float32(1), torch.tensor(1), Fraction(1) and
    Decimal(1) are all 1.0, and -0.0 is 0.0.

    Args:
        name: what the value is called in the error.
        value: a number, or an array or tensor without dimensions that holds one.
        advice: what to give instead, the end of the error's sentence.
        holds: what has to be true of the float.
        finite: whether infinity is refused; NaN always is.

    Raises:
        ValueError: it is no real number (a bool, a text, a complex number, an array), not finite, or out of range.
    """
    try:
        number = float(plain(value)) + 0.0
        if math.isnan(number) or (finite and math.isinf(number)) or not (holds is None or holds(number)):
            raise ValueError(number)
    except FAILURES:
        raise ValueError(f"{name} is {value!r:.200}: {advice}") from None
    return number


def count(name: str, value: Any, advice: str = "", least: int | None = 1) -> int:
    """Return the value as an int, 3 for 3.0 and np.int64(3) too; `least` is the smallest one, None for no bound.

    Raises:
        ValueError: it is no whole number (see `real`), or below `least`.
    """
    try:
        number = plain(value)
        whole = int(number)
        if whole != number or (least is not None and whole < least):
            raise ValueError(number)
    except FAILURES:
        range_ = "" if least is None else f" from {least}"
        raise ValueError(f"{name} is {value!r:.200}: {advice or f'give a whole number{range_}'}") from None
    return whole


def require_rates(option: str, rates: Iterable[float]) -> None:
    """Raise ValueError unless each of the learning rates is above 0."""
    for lr in rates:
        real(f"a rate of {option}", lr, "give learning rates above 0", lambda rate: rate > 0)


def flag(name: str, value: Any) -> bool:
    """Return the value as a bool; NumPy's is one.

    Raises:
        ValueError: it is no bool: 0 and 1 are numbers.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} is {value!r:.200}: give True or False")
    return bool(value)


def store(frozen: Any, **fields: Any) -> None:
    """Put normalised values into the fields of a frozen dataclass that is being made."""
    for name, value in fields.items():
        object.__setattr__(frozen, name, value)


def plain(value: Any) -> Any:
    """Return a number that float() and int() convert, NaN and infinity too.

    Raises:
        TypeError: it is none, also where float() would take it: a bool, a text, an array of one entry.
    """
    if isinstance(value, torch.Tensor):
        if value.ndim or value.dtype == torch.bool:
            raise TypeError(value)
        value = value.item()
    elif isinstance(value, np.ndarray | np.generic):
        if value.ndim or value.dtype.kind not in "iufO":
            raise TypeError(value)
        value = value.item()
    if isinstance(value, bool | str | bytes | bytearray | complex) or not hasattr(type(value), "__float__"):
        raise TypeError(value)
    return value
