"""Named methods of the literature, one readable row each."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zobench import kernels
from zobench.estimator import LineEstimator
from zobench.kernels import Kernel
from zobench.law import LAWS, Coordinate, Gaussian, Law
from zobench.naming import require_known
from zobench.stencil import CentralStencil, ForwardStencil, KernelStencil, RichardsonStencil


@dataclass(frozen=True)
class Method:
    """A row of the table: what the literature calls an estimator, and how it is composed here."""

    name: str
    formula: str
    evaluations: str
    source: str
    build: Callable[..., LineEstimator]

    @property
    def options(self) -> dict[str, Any]:
        """The options of `make` for this method, with their defaults."""
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}


def _mezo(epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian()) -> LineEstimator:
    return LineEstimator(law, CentralStencil(), epsilon, n)


def _kerzoo(
    epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian(), order: int | None = None, kernel: Kernel | None = None
) -> LineEstimator:
    if kernel is not None and order is not None:
        raise ValueError(f"order is {order} and kernel is {kernel!r}: give one of them")
    return LineEstimator(
        law,
        KernelStencil(kernel if kernel is not None else kernels.legendre(3 if order is None else order)),
        epsilon,
        n,
    )


def _forward(epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian()) -> LineEstimator:
    return LineEstimator(law, ForwardStencil(), epsilon, n)


def _richardson(epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian()) -> LineEstimator:
    return LineEstimator(law, RichardsonStencil(), epsilon, n)


def _coordinate(epsilon: float = 1e-3, n: int = 1) -> LineEstimator:
    return LineEstimator(Coordinate(), CentralStencil(), epsilon, n)


METHODS = (
    Method("mezo", "[f(x+eu) - f(x-eu)] / (2e) u", "2 n", "Malladi et al. 2023, arXiv 2305.17333", _mezo),
    Method("kerzoo", "K(r) [f(x+eru) - f(x-eru)] / (2e) u", "2 n", "Mi et al. 2025, arXiv 2505.18886", _kerzoo),
    Method("forward", "[f(x+eu) - f(x)] / e u", "n + 1", "Nesterov and Spokoiny 2017", _forward),
    Method("richardson", "4/3 central(e) - 1/3 central(2e)", "4 n", "Richardson 1911", _richardson),
    Method("coordinate", "d [f(x+e_i e) - f(x-e_i e)] / (2e) e_i", "2 n", "Kiefer and Wolfowitz 1952", _coordinate),
)

NAMED: dict[str, dict[str, Any]] = {"law": dict(LAWS), "kernel": {"kerzoo5_as_printed": kernels.kerzoo5_as_printed()}}


def table() -> tuple[Method, ...]:
    """Return the rows: name, formula, loss evaluations a step, source, options with defaults."""
    return METHODS


def make(name: str, **options: Any) -> LineEstimator:
    """Return the estimator of a named method, `make("kerzoo", epsilon=1e-2, order=5, n=3)`; `law` and `kernel`
    may be objects or names.

    Raises:
        UnknownNameError: no such method, option, law or kernel; the message names the nearest.
        ValueError: an option's value is out of range.
    """
    by_name = {method.name: method for method in METHODS}
    require_known(name, by_name, "method")
    method = by_name[name]
    for option in options:
        require_known(option, method.options, f"option of method {name!r}:")
    return method.build(**{option: _named(option, value) for option, value in options.items()})


def _named(option: str, value: Any) -> Any:
    if not isinstance(value, str) or option not in NAMED:
        return value
    require_known(value, NAMED[option], option)
    return NAMED[option][value]


def parse(text: str, **defaults: Any) -> LineEstimator:
    """Return the estimator of a command-line spelling, `"kerzoo:order=5:n=3"`; `defaults` fill what it leaves out.

    Raises:
        UnknownNameError: no such method or option.
        ValueError: a part is not option=value.
    """
    name, *parts = text.split(":")
    options: dict[str, Any] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} in {text!r} is not option=value; write a method as kerzoo:order=5:n=3")
        options[option] = _literal(value)
    return make(name, **{**defaults, **options})


def _literal(value: str) -> int | float | str:
    for convert in (int, float):
        try:
            return convert(value)
        except ValueError:
            continue
    return value
