"""Named methods of the literature, one readable row each."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from zobench import kernels
from zobench.auto import AutoEpsilon
from zobench.estimator import Estimator, LineEstimator, Shrinking
from zobench.forward_gradient import ForwardGradient
from zobench.kernels import Kernel
from zobench.law import LAWS, Coordinate, Gaussian, Law, Orthogonal
from zobench.naming import require_known
from zobench.numbers import flag
from zobench.spelling import made, own, spelled, taken
from zobench.stencil import (
    CentralStencil,
    ForwardStencil,
    KernelStencil,
    OnePointStencil,
    RichardsonStencil,
    Stencil,
    TelescopingStencil,
    least_noise,
)


@dataclass(frozen=True)
class Method:
    """A row of the table: what the literature calls an estimator, and how it is composed here."""

    name: str
    formula: str
    evaluations: str
    source: str
    build: Callable[..., Estimator]

    @property
    def options(self) -> dict[str, Any]:
        """The options of `make` for this method, with their defaults."""
        return {name: p.default for name, p in inspect.signature(self.build).parameters.items()}


def _along_lines(stencil: Callable[[], Stencil]) -> Callable[..., Estimator]:
    """What builds a method that is this stencil along lines."""

    def build(epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian()) -> Estimator:
        return LineEstimator(law, stencil(), epsilon, n)

    return build


def _kerzoo(
    epsilon: float = 1e-3,
    n: int = 1,
    law: Law = Gaussian(),
    order: int | None = None,
    kernel: Kernel | None = None,
    constant: float = 1.0,
    interval: float = 1.0,
    unscaled: bool = False,
) -> Estimator:
    """`interval` is s in r ~ Uniform[-s, s], under the kernel rescaled to it or, `unscaled`, under that of [-1, 1]."""
    if kernel is not None and (order is not None or constant != 1.0):
        raise ValueError(f"order is {order}, constant {constant} and kernel {kernel!r}: give the kernel or the others")
    if kernel is None:
        kernel = kernels.legendre(3 if order is None else order, constant)
    scale = kernels.shrunk if flag("unscaled", unscaled) else kernels.rescaled
    return LineEstimator(law, KernelStencil(scale(kernel, interval)), epsilon, n)


def _kerzoo_code(
    epsilon: float = 1e-3,
    n: int = 3,
    law: Law = Gaussian(),
    order: int = 3,
    constant: float = 4.0,
    steps: int = 4000,
    least: float = 1e-4,
    unscaled: bool = True,
    per_tensor: bool = True,
) -> Estimator:
    """KerZOO as a third-party port of its code seems to be: C = 4, one r for each tensor, r's interval shrinking as
    max(1 - step / 4000, 1e-4) under the kernel of [-1, 1].

    Each part is an option; `least` = 1 keeps the interval. Left out: the clip of each tensor's estimate to norm 4e5,
    and the interpolation with a second copy of the weights.
    """
    kernel = kernels.legendre(order, constant)
    return Shrinking(law, kernel, epsilon, n, steps, least, unscaled, per_tensor)


def _optimal(
    epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian(), order: int = 3, noise_to_gradient: float = 1.0
) -> Estimator:
    return LineEstimator(law, KernelStencil(kernels.optimal(order, noise_to_gradient)), epsilon, n)


def _chebyshev(epsilon: float = 1e-3, n: int = 1, law: Law = Gaussian(), order: int = 3) -> Estimator:
    return LineEstimator(law, KernelStencil(kernels.chebyshev(order)), epsilon, n)


def _telescoping(
    epsilon: float = 1e-3,
    n: int = 1,
    law: Law = Gaussian(),
    decay: float = 0.5,
    depth: int = 20,
    by_parts: bool = False,
) -> Estimator:
    return LineEstimator(law, TelescopingStencil(decay, depth, by_parts), epsilon, n)


def _orthogonal(epsilon: float = 1e-3, n: int = 1) -> Estimator:
    return LineEstimator(Orthogonal(), CentralStencil(), epsilon, n)


def _coordinate(epsilon: float = 1e-3, n: int = 1, replace: bool = True) -> Estimator:
    return LineEstimator(Coordinate(replace), CentralStencil(), epsilon, n)


def _forward_gradient(n: int = 1, law: Law = Gaussian()) -> Estimator:
    return ForwardGradient(law, n)


AUTO = "auto"
DIFFERENCE = "f(x+eru) - f(x-eru)"

METHODS = (
    Method(
        "mezo",
        "[f(x+eu) - f(x-eu)] / (2e) u",
        "2 n",
        "Malladi et al. 2023, arXiv 2305.17333",
        _along_lines(CentralStencil),
    ),
    Method("kerzoo", f"K(r) [{DIFFERENCE}] / (2e) u", "2 n", "Mi et al. 2025, arXiv 2505.18886", _kerzoo),
    Method(
        "kerzoo-code",
        "K(r_l) [f(x+er.u) - f(x-er.u)] / (2e) u_l, r_l of tensor l, its interval shrinking",
        "2 n",
        "third-party port of the code of arXiv 2505.18886",
        _kerzoo_code,
    ),
    Method("optimal", f"K(r) [{DIFFERENCE}] / (2e) u, r and K of least second moment", "2 n", "Elfving 1952", _optimal),
    Method("chebyshev", f"±q [{DIFFERENCE}] / (2e) u, r at Chebyshev extrema", "2 n", "Elfving 1952", _chebyshev),
    Method("one-point", "f(x+eu) / e u", "n", "Flaxman, Kalai and McMahan 2005", _along_lines(OnePointStencil)),
    Method("forward", "[f(x+eu) - f(x)] / e u", "n + 1", "Nesterov and Spokoiny 2017", _along_lines(ForwardStencil)),
    Method("richardson", "4/3 central(e) - 1/3 central(2e)", "4 n", "Richardson 1911", _along_lines(RichardsonStencil)),
    Method(
        "central4",
        "sum_k A_k central(r_k e), m_3 = 0, least noise",
        "4 n",
        "least_noise(4)",
        _along_lines(partial(least_noise, 4)),
    ),
    Method(
        "central6",
        "sum_k A_k central(r_k e), m_3 = m_5 = 0, least noise",
        "6 n",
        "least_noise(6)",
        _along_lines(partial(least_noise, 6)),
    ),
    Method(
        "telescoping",
        "[central(2^-k e) - central(2^(1-k) e)] / p_k, k random",
        "4 n",
        "Ma and Huang 2025, arXiv 2510.19953",
        _telescoping,
    ),
    Method("orthogonal", "mezo along orthogonal directions", "2 n", "Kozak et al. 2023", _orthogonal),
    Method("coordinate", "d [f(x+e_i e) - f(x-e_i e)] / (2e) e_i", "2 n", "Kiefer and Wolfowitz 1952", _coordinate),
    Method("forward-gradient", "<grad f(x), u> u", "3 n", "Baydin et al. 2022, arXiv 2202.08587", _forward_gradient),
)

NAMED: dict[str, dict[str, Any]] = {"law": dict(LAWS), "kernel": {"kerzoo5_as_printed": kernels.kerzoo5_as_printed()}}


def table() -> tuple[Method, ...]:
    """Return the rows: name, formula, loss evaluations a step, source, options with defaults."""
    return METHODS


def make(name: str, **options: Any) -> Estimator:
    """Return the estimator of a named method, `make("kerzoo", epsilon=1e-2, order=5, n=3)`; `law` and `kernel` may be
    objects, names, or `package.module.function` of one's own. epsilon="auto" gives an AutoEpsilon with the method's
    law, stencil and n.

    >>> make("kerzoo", epsilon=1e-2, order=5, n=3).evaluations
    6

    Raises:
        UnknownNameError: no such method, option, law or kernel; the message names the nearest.
        ValueError: an option's value is out of range.
    """
    by_name = {method.name: method for method in METHODS}
    require_known(name, by_name, "method")
    method = by_name[name]
    chooses = _is_auto(options.get("epsilon"))
    if chooses and "epsilon" not in method.options:
        raise ValueError(f"epsilon is {AUTO!r}, but {name} has no epsilon to choose: leave it out")
    for option in options:
        require_known(option, method.options, f"option of method {name!r}:")
    named = {option: _named(option, value) for option, value in options.items()}
    if not chooses:
        return method.build(**named)
    built = method.build(**{option: value for option, value in named.items() if option != "epsilon"})
    if not isinstance(built, LineEstimator):
        raise ValueError(f"epsilon is {AUTO!r}, but {name} changes from step to step: give a number")
    return AutoEpsilon(built.law, (built.stencil,), built.n)


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == AUTO


def _named(option: str, value: Any) -> Any:
    if not isinstance(value, str) or option not in NAMED:
        return value
    if "." in value and value not in NAMED[option]:
        module, _, function = value.rpartition(".")
        return own(f"{module}:{function}")()
    require_known(value, NAMED[option], option)
    return NAMED[option][value]


def parse(text: str, **defaults: Any) -> Estimator:
    """Return the estimator of a command-line spelling, `"kerzoo:order=5:n=3"`, or of a function of one's own,
    `"package.module:function:n=2"`, whose module is imported; `defaults` fill what it leaves out, as
    far as the method has it.

    >>> parse("mezo:n=3", epsilon=0.01) == make("mezo", epsilon=0.01, n=3)
    True

    Raises:
        UnknownNameError: no such method or option.
        ValueError: a part is not option=value, epsilon is "auto" of a method that has none, or a function of one's own
            cannot be imported or makes no estimator.
    """
    name, options = told = spelled(text, [method.name for method in METHODS])
    if told.is_own:
        return _made(name, {**taken(own(name), defaults), **options})
    known = next((method.options for method in METHODS if method.name == name), defaults)
    fitting = {option: value for option, value in defaults.items() if option in known or _is_auto(value)}
    return make(name, **{**fitting, **options})


def _made(name: str, options: dict[str, Any]) -> Estimator:
    found = made(name, options)
    if not isinstance(found, Estimator):
        raise ValueError(f"{name!r} makes {found!r}, which is no zobench.Estimator")
    return found
