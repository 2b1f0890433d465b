"""The contract of the problems here: value, gradient and directional derivatives exact to rounding."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.numbers import count, store
from zobench.problem import MissingDerivativeError, Ridges


@contextmanager
def differentiable() -> Iterator[None]:
    """Let torch record, whatever the caller has turned off: under inference_mode every gradient would be 0."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


class ExactProblem(ABC):
    """f: R^d -> R, batched: x (..., d) float64 -> (...), with derivatives of orders 1 to 6.

    `minimum` is the least value and `minimizer` (d,) a point that takes it, each None where not known; `degree` that of
    a polynomial, or None; `smoothness` a bound on the eigenvalues of the Hessian wherever it holds, or None. Starting
    points lie around `centre` (d,), at a distance of about `radius`.

    Raises:
        ValueError: the problem has too few variables.
    """

    least_dim: ClassVar[int] = 1

    if TYPE_CHECKING:  # a subclass may hold these as fields, which at run time would take a property as their default

        @property
        def name(self) -> str: ...

        @property
        def dim(self) -> int: ...

        @property
        def centre(self) -> Tensor: ...

    def __post_init__(self) -> None:
        dim = count("dim", self.dim, f"{self.name} wants {self.least_dim} or more variables", self.least_dim)
        if type(self.dim) is not int:
            store(self, dim=dim)

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x) (...)."""

    @abstractmethod
    def gradient(self, x: Tensor) -> Tensor:
        """Return grad f(x) (..., d)."""

    @abstractmethod
    def hessian(self, x: Tensor) -> Tensor:
        """Return D^2 f(x) (d, d) at one point x (d,)."""

    @abstractmethod
    def derivative(self, x: Tensor, u: Tensor, order: int) -> Tensor:
        """Return D^order f(x)[u, ..., u], broadcasting x and u, order >= 1."""

    @abstractmethod
    def grad_laplacian(self, x: Tensor, order: int = 1) -> Tensor:
        """Return grad(Lap^order f)(x) (..., d)."""

    def value(self, x: Tensor) -> Tensor:
        """Return f(x) (...)."""
        return self(x)

    def ridges(self, x: Tensor, order: int) -> Ridges:
        """Return D^order f(x) as a sum of powers, at one point x (d,): the gradient, the eigenvectors of the Hessian,
        or what the form of f gives.

        Raises:
            MissingDerivativeError: f has no such form at this order.
        """
        if order == 1:
            return Ridges(torch.ones(1, dtype=torch.float64, device=CPU), self.gradient(x)[None])
        if order == 2:
            eigenvalues, vectors = torch.linalg.eigh(self.hessian(x))
            return Ridges(eigenvalues, vectors.T)
        return self._high_ridges(x, order)

    def _high_ridges(self, x: Tensor, order: int) -> Ridges:
        raise MissingDerivativeError(
            f"{self.name} has D^{order} f along lines, not as a sum of powers: a prediction that needs .ridges of "
            f"order {order} is for polynomials, separable functions and logistic regression"
        )

    @property
    def radius(self) -> float:
        """About how far from the centre to start."""
        return 1.0

    @property
    def degree(self) -> int | None:
        """Degree of a polynomial, else None."""
        return None

    @property
    def minimum(self) -> float | None:
        """The least value, where known."""
        return None

    @property
    def minimizer(self) -> Tensor | None:
        """A point of least value, (d,), where known: the centre if the minimum is."""
        return None if self.minimum is None else self.centre

    @property
    def smoothness(self) -> float | None:
        """A Lipschitz constant of the gradient, where there is one."""
        return None
