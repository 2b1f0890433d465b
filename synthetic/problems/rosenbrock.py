"""Rosenbrock's valley, chained through the coordinates."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from synthetic.problems.formula import Formula
from synthetic.problems.series import Point
from zobench.layout import CPU
from zobench.problem import Ridges


@dataclass(frozen=True)
class Rosenbrock(Formula):
    """sum_{i < d} 100 (x_{i+1} - x_i^2)^2 + (1 - x_i)^2, of degree 4, d >= 2.

    The least value is 0, at ones; from 4 variables on there is another local minimum, near (-1, 1, ..., 1). Source:
    Rosenbrock 1960; Shang and Qiu 2006 for the chain.

    Raises:
        ValueError: dim < 2.
    """

    dim: int = 16
    name: ClassVar[str] = "rosenbrock"
    least_dim: ClassVar[int] = 2

    @property
    def centre(self) -> Tensor:
        """The minimizer, ones."""
        return torch.ones(self.dim, dtype=torch.float64, device=CPU)

    @property
    def degree(self) -> int:
        """4."""
        return 4

    @property
    def minimum(self) -> float:
        """0."""
        return 0.0

    def formula(self, x: Point) -> Point:
        """Return f(x)."""
        here, after = x[..., :-1], x[..., 1:]
        return (100.0 * (after - here.square()).square() + (1.0 - here).square()).sum(-1)

    def grad_laplacian(self, x: Tensor, order: int = 1) -> Tensor:
        """Return grad(Lap^order f)(x): Lap f = sum_{i < d} 1200 x_i^2 - 400 x_{i+1} + 202, and 0 from order 2 on."""
        gradient = torch.zeros(x.shape, dtype=torch.float64, device=CPU)
        if order == 1:
            gradient[..., :-1] += 2400.0 * x[..., :-1]
            gradient[..., 1:] -= 400.0
        return gradient

    def _high_ridges(self, x: Tensor, order: int) -> Ridges:
        """D_3 = sum_{i < d} 2400 x_i u_i^3 - 1200 u_i^2 u_{i+1} and D_4 = sum_{i < d} 2400 u_i^4, with u^2 v = ((u +
        v)^3 - (u - v)^3 - 2 v^3) / 6.
        """
        axes = torch.eye(self.dim, dtype=torch.float64, device=CPU)
        here, after = axes[:-1], axes[1:]
        if order > 3:
            return Ridges(
                torch.full((self.dim - 1,), 2400.0 if order == 4 else 0.0, dtype=torch.float64, device=CPU), here
            )
        pair = torch.full((self.dim - 1,), 200.0, dtype=torch.float64, device=CPU)
        coefficients = torch.cat((2400.0 * x[:-1].double(), -pair, pair, 2 * pair))
        return Ridges(coefficients, torch.cat((here, here + after, here - after, after)))
