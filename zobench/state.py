"""States of estimators and memories of rules as plain data: what files of a run keep, and what comes back from them.

Plain data are numbers, texts, None, tensors, lists, and dictionaries by text, as torch.load reads them with
weights_only=True and JSON holds them when the tensors are apart.
"""

import sys
from dataclasses import fields, is_dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

TYPE, TUPLE, FRACTION, TENSOR = "type", "tuple", "fraction", "tensor"
OLD = ("AutoState", "Choice")  # as states of optimizers were named before


def plain(value: Any) -> Any:
    """Return a state as plain data.

    Raises:
        TypeError: it has a part that is no number, text, None, tensor, tuple, list, dictionary by text, frozen
            dataclass or named tuple of such.
    """
    if isinstance(value, np.generic):  # of which float64 is a float
        return value.item()
    if value is None or isinstance(value, bool | int | float | str | Tensor):
        return value
    if isinstance(value, Fraction):
        return {TYPE: FRACTION, "text": str(value)}
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict) and all(isinstance(name, str) for name in value):
        return {TYPE: "dict", "items": {name: plain(each) for name, each in value.items()}}
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return {TYPE: TUPLE, "items": [plain(each) for each in value]}
    names = _fields(type(value))
    if names is None:
        raise TypeError(
            f"a state holds {value!r} ({type(value).__qualname__}), which no file of a run can keep: give numbers, "
            "texts, tensors, tuples, lists, frozen dataclasses or named tuples of such"
        )
    return {TYPE: _name(type(value))} | {name: plain(getattr(value, name)) for name in names}


def restored(value: Any) -> Any:
    """Return the state of plain data. Its classes must be of modules that are imported already, as those of the
    estimator and the rule at hand are: a file runs no code.

    Raises:
        ValueError: a class is not to be found, or is no frozen dataclass or named tuple with these fields.
    """
    if isinstance(value, list | tuple):
        return type(value)(restored(each) for each in value)
    if not isinstance(value, dict):
        return value
    kind = value.get(TYPE)
    if kind == TUPLE:
        return tuple(restored(each) for each in value["items"])
    if kind == FRACTION:
        return Fraction(value["text"])
    if kind == "dict":
        return {name: restored(each) for name, each in value["items"].items()}
    cls = _class(kind)
    given = {name: restored(each) for name, each in value.items() if name != TYPE}
    if set(given) != set(_fields(cls) or ()):
        raise ValueError(f"a saved state has a {kind} with the fields {sorted(given)}: it is of another version")
    return cls(**given)


def split(value: Any) -> tuple[Any, dict[str, Tensor]]:
    """Return plain data as JSON holds them, each tensor replaced by its number, and the tensors by number; one that is
    there twice has one number.
    """
    tensors: dict[str, Tensor] = {}
    numbers: dict[int, str] = {}

    def apart(each: Any) -> Any:
        if isinstance(each, Tensor):
            number = numbers.setdefault(id(each), str(len(tensors)))
            tensors.setdefault(number, each)
            return {TYPE: TENSOR, "number": number}
        if isinstance(each, list):
            return [apart(one) for one in each]
        return {name: apart(one) for name, one in each.items()} if isinstance(each, dict) else each

    return apart(value), tensors


def joined(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Return the plain data that `split` took apart."""
    if isinstance(value, list):
        return [joined(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get(TYPE) == TENSOR:
        return tensors[value["number"]]
    return {name: joined(each, tensors) for name, each in value.items()}


def _fields(kind: type) -> tuple[str, ...] | None:
    """The names of the fields that make such an object again, or None."""
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return tuple(kind._fields)
    parameters = getattr(kind, "__dataclass_params__", None)
    if is_dataclass(kind) and parameters is not None and parameters.frozen:
        return tuple(field.name for field in fields(kind) if field.init)
    return None


def _name(kind: type) -> str:
    name = f"{kind.__module__}:{kind.__qualname__}"
    if _found(name) is not kind:
        raise TypeError(
            f"a state holds a {name}, which no file of a run can find again by that name: define the class at the top "
            "level of a module"
        )
    return name


def _found(name: str) -> Any:
    """The class of a name, in modules that are imported already; None if there is none."""
    module, _, path = name.partition(":")
    value: Any = sys.modules.get(module)
    for attribute in path.split("."):
        value = getattr(value, attribute, None)
    return value


def _class(kind: Any) -> type:
    cls = _found(f"zobench.auto:{kind}" if kind in OLD else str(kind))
    if not isinstance(cls, type) or _fields(cls) is None:
        raise ValueError(
            f"a saved state has a {kind}, which is no frozen dataclass or named tuple of an imported module: import "
            "the module of the estimator or rule first"
        )
    return cls


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal to the bit, tensors included; NaN equals itself."""
    left, right = split(plain(one)), split(plain(other))
    if repr(left[0]) != repr(right[0]) or len(left[1]) != len(right[1]):
        return False
    pairs = zip(left[1].values(), right[1].values(), strict=True)
    return all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs
    )
