"""An estimator's state in types that torch.load reads with weights_only=True, and back."""

import sys
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from torch import Tensor

from zobench.auto import AutoState, Choice

CLASS = "zobench.class"
OLD = {cls.__name__: cls for cls in (AutoState, Choice)}  # as files had them under "type"


def plain(state: Any) -> Any:
    """Return the state with each NamedTuple and frozen dataclass as a dict of its class, "module:qualname", and fields.

    Raises:
        TypeError: something in it is neither such a class nor a number, text, None, tensor, tuple, list or dict; or its
            class cannot be found again by its name.
    """
    if isinstance(state, np.generic):  # of which float64 is a float
        return state.item()
    if state is None or isinstance(state, bool | int | float | str | Tensor):
        return state
    if isinstance(state, dict):
        return {plain(key): plain(value) for key, value in state.items()}
    names = _fields(type(state))
    if names is not None:
        return {CLASS: _name(type(state)), **{name: plain(getattr(state, name)) for name in names}}
    if type(state) in (tuple, list):
        return type(state)(map(plain, state))
    raise TypeError(
        f"the estimator's state has a {type(state).__name__}, which a checkpoint cannot hold: give a NamedTuple or a "
        "frozen dataclass of numbers and tensors"
    )


def restored(state: Any) -> Any:
    """Return the state that `plain` was given. Nothing is imported: a file names classes, but runs no code.

    Raises:
        ValueError: it names a class that is not there, or that is no NamedTuple and no frozen dataclass.
    """
    if isinstance(state, dict):
        values = {key: restored(value) for key, value in state.items()}
        if CLASS in values:
            return _class(values.pop(CLASS))(**values)
        return OLD[values.pop("type")](**values) if values.get("type") in OLD else values
    return type(state)(map(restored, state)) if type(state) in (tuple, list) else state


def _fields(cls: Any) -> tuple[str, ...] | None:
    """The fields of a NamedTuple or a frozen dataclass; None of another class."""
    if isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields"):
        return tuple(cls._fields)
    if isinstance(cls, type) and is_dataclass(cls) and getattr(cls, "__dataclass_params__").frozen:  # noqa: B009
        return tuple(field.name for field in fields(cls) if field.init)
    return None


def _name(cls: type) -> str:
    name = f"{cls.__module__}:{cls.__qualname__}"
    if _found(name) is not cls:
        raise TypeError(
            f"the estimator's state is a {name}, which a checkpoint cannot find by that name: define the class at the "
            "top level of a module"
        )
    return name


def _class(name: str) -> Any:
    cls = _found(name)
    if _fields(cls) is None:
        raise ValueError(
            f"the state is a {name}, and there is no such NamedTuple or frozen dataclass: import its module first, in "
            "the version that saved it"
        )
    return cls


def _found(name: str) -> Any:
    """The class of a name, in modules that are imported already; None if there is none."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    return found
