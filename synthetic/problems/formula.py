"""Problems given by one formula, every derivative of which follows by Taylor arithmetic and reverse differentiation."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from synthetic.problems.exact import ExactProblem, differentiable
from synthetic.problems.series import Point, PowerSeries
from zobench.layout import CPU

LINES_AT_ONCE = 64


class Formula(ExactProblem):
    """A problem whose `formula` maps a tensor (..., d) to (...), and a PowerSeries likewise.

    Cost of a gradient: one reverse pass; of D^k f along a line: k^2 / 2 evaluations; of the Hessian d lines, of
    grad(Lap f) d lines, of grad(Lap^2 f) d^2 lines.
    """

    @abstractmethod
    def formula(self, x: Point) -> Point:
        """Return f(x), in operations that PowerSeries has."""

    def require_smooth(self, x: Tensor) -> None:
        """Raise ValueError where f has no derivative at x."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x) (...)."""
        return self.formula(x.double())

    def gradient(self, x: Tensor) -> Tensor:
        """Return grad f(x) (..., d)."""
        self.require_smooth(x)
        with differentiable():
            point = x.detach().double().clone().requires_grad_()
            return _gradient(self.formula(point), point)

    def derivative(self, x: Tensor, u: Tensor, order: int) -> Tensor:
        """Return D^order f(x)[u, ..., u], broadcasting x and u, order >= 1."""
        self.require_smooth(x)
        return self._along(x.double(), u.double(), order)

    def hessian(self, x: Tensor) -> Tensor:
        """Return D^2 f(x) (d, d): row i is the gradient of the derivative along axis i."""
        self.require_smooth(x)
        axes = torch.eye(self.dim, dtype=torch.float64, device=CPU)
        with differentiable():
            points = x.detach().double().repeat(self.dim, 1).requires_grad_()
            rows = _gradient(self._along(points, axes, 1), points)
        return (rows + rows.T) / 2

    def grad_laplacian(self, x: Tensor, order: int = 1) -> Tensor:
        """Return grad(Lap^order f)(x) (..., d), order 1 or 2.

        Raises:
            ValueError: the order is neither 1 nor 2.
        """
        self.require_smooth(x)
        total = torch.zeros(x.shape, dtype=torch.float64, device=CPU)
        weights, lines = _laplacian(self.dim, order)
        for weight, u in zip(weights.split(LINES_AT_ONCE), lines.split(LINES_AT_ONCE), strict=True):
            with differentiable():
                point = x.detach().double().clone().requires_grad_()
                total += _gradient(weight * self._along(point.unsqueeze(-2), u, 2 * order), point)
        return total

    def _along(self, x: Tensor, u: Tensor, order: int) -> Tensor:
        line = self.formula(PowerSeries.line(x, u, order))
        return math.factorial(order) * line.coefficients[order]


def _gradient(values: Tensor, point: Tensor) -> Tensor:
    """The gradient of the sum of the values; 0 where they do not depend on the point."""
    if not values.requires_grad:
        return torch.zeros_like(point).detach()
    (gradient,) = torch.autograd.grad(values.sum(), point, materialize_grads=True)
    return gradient


def _laplacian(dim: int, order: int) -> tuple[Tensor, Tensor]:
    """Weights and lines with Lap^order f = sum_j weights_j D^(2 order) f[lines_j, ..., lines_j].

    Order 2: f_iijj = (D^4[e_i + e_j] + D^4[e_i - e_j] - 2 D^4[e_i] - 2 D^4[e_j]) / 12.
    """
    axes = torch.eye(dim, dtype=torch.float64, device=CPU)
    if order == 1:
        return torch.ones(dim, dtype=torch.float64, device=CPU), axes
    if order != 2:
        raise ValueError(f"grad_laplacian of order {order!r}: this problem has orders 1 and 2")
    i, j = torch.triu_indices(dim, dim, 1, dtype=torch.int64, device=CPU)
    lines = torch.cat((axes, axes[i] + axes[j], axes[i] - axes[j]))
    weights = torch.full((len(lines),), 1 / 6, dtype=torch.float64, device=CPU)
    weights[:dim] = 1 - (dim - 1) / 3
    return weights, lines
