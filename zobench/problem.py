"""The contract of a function whose gradient is known."""

from typing import Any, NamedTuple, Protocol

from torch import Tensor


class Ridges(NamedTuple):
    """One directional derivative as a sum of powers: D^a f(x)[u, ..., u] = sum_j coefficients_j (directions_j . u)^a.

    Coefficients are (m,), directions (m, d), both float64. Every polynomial has this form; separable functions have it
    with the axes, sums over data such as logistic regression with the data.
    """

    coefficients: Tensor
    directions: Tensor


class Problem(Protocol):
    """f: R^d -> R with an exact gradient; x is (..., d), values (...), gradients (..., d).

    Optional, as far as known; theory names what it needs and lacks:
    `degree` of a polynomial, or None; `minimum`, the least value, or None;
    `derivative(x, u, order)` = D^order f(x)[u, ..., u];
    `grad_laplacian(x, order=k)` = grad(Lap^k f)(x);
    `hessian(x)` = D^2 f(x), (d, d), at one point x (d,);
    `ridges(x, order)` = D^order f(x)[u, ..., u] as Ridges, at one point x (d,), for orders 1 to 6.
    """

    @property
    def dim(self) -> int:
        """Return d, the number of variables."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x)."""

    def gradient(self, x: Tensor) -> Tensor:
        """Return grad f(x)."""


class MissingDerivativeError(ValueError):
    """A prediction needs a derivative that the problem does not declare."""


def demand(problem: Any, name: str, why: str) -> Any:
    """Return problem.<name>.

    Raises:
        MissingDerivativeError: the problem does not have it; the message says what needs it.
    """
    value = getattr(problem, name, None)
    if value is None:
        raise MissingDerivativeError(f"{why} needs .{name} of {type(problem).__name__}, which does not declare it")
    return value
