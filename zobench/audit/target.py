"""The subject of checks that a TARGET names."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import torch

from zobench import methods
from zobench.audit import adapters
from zobench.audit.command import Program
from zobench.estimator import Estimator
from zobench.spelling import own, spelled
from zobench.testing import Promises, Subject, from_function
from zobench.testing.check_estimator import subject_of

PROMISED = Promises(mean=1.0)


def subject(text: str, array: str = "numpy", epsilon: float = 1e-2, varied: str = "epsilon") -> Subject:
    """Return the subject of `package.module:object[:option=value...]` or of a method's name.

    The object is an Estimator, its class, make(epsilon=) of one, a plain function g(f, x, [seed, epsilon, n]), an
    optimizer class (or a function with an attribute `optimizer` that is true), or a class with ask and tell. `array` is
    "numpy" or "torch", what a plain function is given; `varied` is the name of its option that is the displacement.

    Raises:
        ValueError: the object is not found, or is none of these.
    """
    names = [method.name for method in methods.table()]
    name, options = spelling = spelled(text, names)
    if not spelling.is_own:
        return subject_of(methods.parse(text, epsilon=epsilon))
    target = _object(name)
    if isinstance(target, Estimator):
        if options:
            raise ValueError(f"{name!r} is an Estimator, which takes no options: leave out {', '.join(options)}")
        return _named(subject_of(target), text)
    if inspect.isclass(target) and issubclass(target, Estimator):  # it has ask and tell, of plans
        return _named(subject_of(_maker(target, name, options)), text)
    if _is_optimizer(target):
        return _plain(adapters.of_optimizer(target, **options), "torch", epsilon, varied, text)
    if hasattr(target, "ask") and hasattr(target, "tell"):
        return _plain(adapters.of_ask_tell(target, **options), array, epsilon, varied, text)
    if _is_plain(target, options):
        return _plain(adapters.with_options(target, options), array, epsilon, varied, text)
    return _named(subject_of(_maker(target, name, options)), text)


def program(running: Program, epsilon: float = 1e-2) -> Subject:
    """Return the subject of a program that speaks the protocol of `zobench.audit.command`."""
    return _named(from_function(running, "numpy", PROMISED, epsilon), running.command)


def _plain(g: Callable[..., Any], array: str, epsilon: float, varied: str, name: str) -> Subject:
    if varied != "epsilon":
        g = adapters.renamed(g, varied)
    return _named(from_function(g, array, PROMISED, epsilon), name)


def _named(one: Subject, name: str) -> Subject:
    """The subject under the name that rows have, which is that of the command line."""
    one.name = name
    return one


def _object(name: str) -> Any:
    """The object, callable or not."""
    module, _, attribute = name.partition(":")
    try:
        target = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError):
        return own(name)  # which says what is wrong
    return target if isinstance(target, Estimator) else own(name)


def _is_optimizer(target: Any) -> bool:
    is_class = inspect.isclass(target) and issubclass(target, torch.optim.Optimizer)
    return is_class or bool(getattr(target, "optimizer", False))


def _is_plain(target: Any, options: dict[str, Any]) -> bool:
    """Whether it has two places that are to be filled, f and x."""
    places = [
        p
        for p in inspect.signature(target).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.default is p.empty and p.name not in options
    ]
    return len(places) >= 2


def _maker(target: Callable[..., Any], name: str, options: dict[str, Any]) -> Callable[..., Any]:
    try:
        inspect.signature(target).bind_partial(**options)
    except TypeError as error:
        raise ValueError(f"{name!r} does not take the options {sorted(options)}: {error}") from None
    takes_epsilon = "epsilon" in inspect.signature(target).parameters and "epsilon" not in options
    made = target(**options)
    if not isinstance(made, Estimator):
        raise ValueError(
            f"{name!r} is no target: give an Estimator, make(epsilon=) of one, g(f, x, seed), an optimizer class, or a "
            f"class with ask and tell; it made {made!r:.100}"
        )
    return (lambda epsilon: target(**options, epsilon=epsilon)) if takes_epsilon else (lambda: target(**options))
