"""Plain functions (f, x, ...) -> estimate, made of objects with other interfaces."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from zobench.spelling import taken

RATE = 1.0


def of_optimizer(kind: Callable[..., torch.optim.Optimizer], **options: Any) -> Callable[..., Tensor]:
    """Return g(f, x) of an optimizer whose step is x - lr g: (x before - x after) / lr, lr by default 1.

    The closure gives the loss as a tensor and calls no backward; it takes the argument `backward` that some libraries
    give. `kind` may also be a function of the parameters that returns an optimizer; it is told lr where it takes it.
    """
    rate = float(options.get("lr", RATE))
    named = {**taken(kind, {"lr": rate}), **{name: value for name, value in options.items() if name != "lr"}}

    def g(f: Callable[[Tensor], Tensor], x: Tensor, **also: Any) -> Tensor:
        parameter = torch.nn.Parameter(x.clone())
        optimizer: Any = kind([parameter], **{**named, **also})
        optimizer.step(lambda backward=False: f(parameter))
        return (x - parameter.detach()) / rate

    return _with_signature(g, kind, options, places=1)


def of_ask_tell(kind: Callable[..., Any], gradient: str = "gradient", **options: Any) -> Callable[..., Any]:
    """Return g(f, x) of kind(x): `ask()` returns points (n, d), `tell(points, values)` takes the values of all, and the
    estimate is what it returns or else the attribute `gradient`.

    Raises:
        ValueError: there is neither.
    """

    def g(f: Callable[[Any], float], x: Any, **also: Any) -> Any:
        one = kind(x, **{**options, **also})
        points = one.ask()
        answer = one.tell(points, [f(point) for point in points])
        if answer is None and not hasattr(one, gradient):
            raise ValueError(f"{type(one).__name__}.tell returns nothing, and there is no .{gradient}: name another")
        return getattr(one, gradient) if answer is None else answer

    return _with_signature(g, kind, options, places=1)


def with_options(function: Callable[..., Any], options: dict[str, Any]) -> Callable[..., Any]:
    """Return a plain function with some of its options given."""

    def g(f: Any, x: Any, **also: Any) -> Any:
        return function(f, x, **{**options, **also})

    return _with_signature(g, function, options, places=2)


def renamed(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return a plain function whose displacement, an option of this name, is called epsilon.

    Raises:
        ValueError: it has no such option, or that is given.
    """

    def g(f: Any, x: Any, **also: Any) -> Any:
        return function(f, x, **{name if key == "epsilon" else key: value for key, value in also.items()})

    names = set(inspect.signature(function).parameters) - {"epsilon"}
    if name not in names:
        raise ValueError(f"--vary {name}: the target has no such option that is left to choose")
    g.__signature__ = _signature({"epsilon" if key == name else key for key in names - {"f", "x"}})  # type: ignore[attr-defined]
    return g


def _with_signature(
    g: Callable[..., Any], kind: Callable[..., Any], given: dict[str, Any], places: int
) -> Callable[..., Any]:
    """G with those parameters of `kind` behind the first places that are not given: checks fill seed, epsilon and n."""
    parameters = list(inspect.signature(kind).parameters.items())[places:]
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    g.__signature__ = _signature(  # type: ignore[attr-defined]
        {name for name, one in parameters if one.kind in named and name not in {*given, "f", "x", "lr"}}
    )
    g.__name__ = g.__qualname__ = getattr(kind, "__qualname__", type(kind).__name__)
    return g


def _signature(options: set[str]) -> inspect.Signature:
    places = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("f", "x")]
    named = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in sorted(options)]
    return inspect.Signature([*places, *named])
