"""An estimator from its repr, without running what the text says."""

import ast
import math
from typing import Any

from zobench import estimators, kernels, maps, public
from zobench.estimator import Estimator
from zobench.kernels import Kernel
from zobench.law import Law
from zobench.maps import CoefficientMap
from zobench.stencil import Stencil

MODULES = (kernels, public, maps, estimators)
PARTS = (Estimator, Law, Stencil, Kernel, CoefficientMap)
LONGEST, LARGEST, HIGHEST = 100_000, 1_000_000, 101
"""Characters of a text, its largest whole number, and that in a kernel: what is beyond would take forever to build."""


def restore(text: str) -> Estimator:
    """Return the estimator whose repr this is: calls of zobench's and zobench.kernels' constructors with literals.

    Nothing else is evaluated, so that a text from anywhere is safe to give.

    Raises:
        ValueError: the text is not such a repr; the message says what in it is not.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError(f"it has {len(text)} characters")
        found = _value(ast.parse(text, mode="eval").body)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError, ArithmeticError) as error:
        raise ValueError(f"{text[:200]!r} is not the repr of an estimator: {error}") from None
    if not isinstance(found, Estimator):
        raise ValueError(f"{text[:200]!r} is not the repr of an estimator, but of {type(found).__name__}")
    return found


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str | None):
        return _bounded(node.value, LARGEST)
    if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
        return float(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_number(_value(node.operand))
    if isinstance(node, ast.Tuple):
        return tuple(map(_value, node.elts))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and all(word.arg for word in node.keywords):
        return _call(node.func.id, [_value(a) for a in node.args], {str(w.arg): _value(w.value) for w in node.keywords})
    raise ValueError(f"{ast.unparse(node)[:80]!r} is no literal and no constructor")


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return value


def _bounded(value: Any, most: int) -> Any:
    if isinstance(value, int) and abs(value) > most:
        raise ValueError(f"{value} is too large")
    return value


def _call(name: str, positional: list[Any], named: dict[str, Any]) -> Any:
    function = next((vars(module)[name] for module in MODULES if name in module.__all__), None)
    for value in (*positional, *named.values()) if name in kernels.__all__ else ():
        _bounded(value, HIGHEST)
    if not callable(function):
        raise ValueError(f"{name!r} is no public constructor of zobench")
    found = function(*positional, **named) if _makes_part(function) else None
    if not isinstance(found, PARTS):
        raise ValueError(f"{name!r} makes no part of an estimator")
    return found


def _makes_part(function: Any) -> bool:
    """Whether it is a class of a part, or a function declared to return one."""
    if isinstance(function, type):
        return issubclass(function, PARTS)
    returned = getattr(function, "__annotations__", {}).get("return")
    return isinstance(returned, type) and issubclass(returned, PARTS)
