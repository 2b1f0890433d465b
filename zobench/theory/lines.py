"""Derivatives of a problem along lines: D_a = D^a f(x)[u, ..., u] as a function of u."""

import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.problem import Problem, Ridges, demand
from zobench.theory.ridge_moments import JointMoments

Moments = TypeVar("Moments", bound=JointMoments)

HIGHEST_ORDER = 6


class Lines:
    """The derivatives D_a = D^a f(x)[u, ..., u] of a problem at one point x (d,), each asked for once, with the moments
    of their ridges. Cost: f is evaluated for order 0 alone.

    Args:
        problem: f; which derivatives it must declare depends on the law and the prediction.
        x: the point, (d,).

    Raises:
        TypeError: the problem is no zobench.Problem.
        ValueError: x is no finite point (d,) of it.
    """

    def __init__(self, problem: Problem, x: Tensor) -> None:
        self.problem, self.dim = problem, dimension(problem)
        self.x = _point(x, self.dim)
        self._ridges: dict[int, Ridges] = {}
        self._joint: dict[tuple[object, int, int], JointMoments] = {}
        self._along_axes: dict[int, Tensor] = {}
        self._gradient: Tensor | None = None
        self._hessian: Tensor | None = None

    @property
    def highest(self) -> int:
        """The highest order a with D_a in the series: the degree of a polynomial, and at most 6."""
        degree = getattr(self.problem, "degree", None)
        return HIGHEST_ORDER if degree is None else min(int(degree), HIGHEST_ORDER)

    @property
    def complete(self) -> bool:
        """Whether the problem is a polynomial whose series ends within the orders kept."""
        degree = getattr(self.problem, "degree", None)
        return degree is not None and degree <= HIGHEST_ORDER

    def knows(self, name: str) -> bool:
        """Return whether the problem declares the derivative of this name: "ridges", "hessian", "derivative"."""
        return getattr(self.problem, name, None) is not None

    @property
    def value(self) -> float:
        """f(x)."""
        return float(self.problem(self.x))

    @property
    def gradient(self) -> Tensor:
        """The gradient at x, float64 (d,)."""
        if self._gradient is None:
            self._gradient = self.problem.gradient(self.x).double()
        return self._gradient

    def hessian(self, why: str) -> Tensor:
        """D^2 f(x), float64 (d, d).

        Args:
            why: what needs it, for the error's sentence.

        Raises:
            MissingDerivativeError: the problem declares no hessian.
        """
        if self._hessian is None:
            self._hessian = demand(self.problem, "hessian", why)(self.x).double()
        return self._hessian

    def ridges(self, order: int, why: str) -> Ridges:
        """D_order = sum_j c_j (v_j . u)^order; order 0 is the constant f(x). `why` and errors are those of
        `hessian`.
        """
        if order not in self._ridges:
            if order == 0:
                one = torch.tensor([self.value], dtype=torch.float64, device=CPU)
                self._ridges[0] = Ridges(one, torch.zeros(1, self.dim, dtype=torch.float64, device=CPU))
            elif order == 1:
                self._ridges[1] = Ridges(torch.ones(1, dtype=torch.float64, device=CPU), self.gradient[None])
            else:
                self._ridges[order] = demand(self.problem, "ridges", why)(self.x, order)
        return self._ridges[order]

    def joint(self, kind: Callable[[Tensor, Tensor], Moments], left: Ridges, right: Ridges) -> Moments:
        """The joint moments of two sets of ridges, shared between the orders that have the same directions."""
        name = (kind, id(left.directions), id(right.directions))
        if name not in self._joint:
            self._joint[name] = kind(left.directions, right.directions)
        return cast(Moments, self._joint[name])

    def axis_derivatives(self, order: int, why: str) -> Tensor:
        """D^order f along each axis, float64 (d,). `why` and errors are those of `hessian`."""
        if order not in self._along_axes:
            self._along_axes[order] = self._axis_derivatives(order, why)
        return self._along_axes[order]

    def _axis_derivatives(self, order: int, why: str) -> Tensor:
        if order == 0:
            return torch.full((self.dim,), self.value, dtype=torch.float64, device=CPU)
        if order == 1:
            return self.gradient
        if order == 2 and self.knows("hessian"):
            return self.hessian(why).diagonal()
        if self.knows("ridges"):
            coefficients, directions = self.ridges(order, why)
            return coefficients @ directions**order
        axes = torch.eye(self.dim, dtype=torch.float64, device=CPU)
        along: Tensor = demand(self.problem, "derivative", why)(self.x, axes, order)
        return along


def dimension(problem: Problem) -> int:
    """Return d.

    Raises:
        TypeError: the problem declares no `dim` or no `gradient`, as a bare function does.
    """
    if not (hasattr(problem, "dim") and hasattr(problem, "gradient")):
        raise TypeError(f"theory needs a zobench.Problem, which knows .dim and .gradient; got {problem!r:.200}")
    return int(problem.dim)


def _point(x: Any, dim: int) -> Tensor:
    if not isinstance(x, Tensor) or x.shape != (dim,):
        shown = f"has shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"is {x!r:.200}"
        raise ValueError(f"x {shown}: give one point of the problem, a tensor ({dim},)")
    if not bool(x.isfinite().all()):
        raise ValueError(f"x is {x.tolist()!r:.200}: give a finite point")
    return x.double()


def radial(dim: int, degree: int) -> float:
    """E[P(u)] on the sphere of radius sqrt(d) over that for N(0, I): d^k / (d (d+2) ... (d+2k-2)) for P homogeneous of
    even degree 2k.
    """
    return math.prod(dim / (dim + 2 * i) for i in range(degree // 2))
