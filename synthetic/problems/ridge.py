"""Polynomials whose value, gradient, Laplacians and line moments are exact.

f(x) = 1/2 y^T A y + sum_j psi(v_j . y), y = x - centre, psi(s) = c3 s^3 / 6 + c4 s^4 / 24 + c6 s^6 / 720, with v_j the
rows of a random orthogonal matrix V: the ridges couple all coordinates. A has a chosen spectrum and eigenvectors of its
own, or the axes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear

from synthetic.problems.draws import normal, orthogonal
from synthetic.problems.exact import ExactProblem
from synthetic.problems.psi import Powers, chosen, minimal_at_zero, psi, spectrum
from zobench.layout import CPU
from zobench.problem import Ridges
from zobench.random.keys import derive


@dataclass(frozen=True, eq=False)
class RidgePolynomial(ExactProblem):
    """f(x) = y^T A y / 2 + sum_j psi(v_j . y), y = x - centre, psi(s) = sum_p c_p s^p / p!: a polynomial of degree 2,
    3, 4 or 6 in `dim` variables, batched: x (..., d) -> (...).

    `powers` maps a power p to c_p. With the quartic strong enough for the cubic (c3^2 <= 3 lambda_min c4) the minimum
    is 0, at the centre.
    """

    name: str
    curvature: Tensor  # A: the Hessian at the centre
    ridge_directions: Tensor
    centre: Tensor
    powers: Powers

    @property
    def dim(self) -> int:
        """Number of variables."""
        return self.centre.shape[0]

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return max(self.powers, default=2)

    @property
    def smoothness(self) -> float | None:
        """The largest eigenvalue of the Hessian of a quadratic; None above degree 2."""
        return None if self.powers else float(torch.linalg.eigvalsh(self.curvature)[-1])

    @property
    def minimum(self) -> float | None:
        """The least value, 0, where the coefficients prove it; else None."""
        eigenvalues = torch.linalg.eigvalsh(self.curvature)
        least = float(eigenvalues[0] + 1e-13 * eigenvalues[-1])
        return 0.0 if minimal_at_zero(self.powers, least) else None

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x), as sum_j s_j ((B s)_j / 2 + s_j p(s_j)) with s = V y, B = V A V^T and psi(s) = s^2 p(s): few
        passes over x.
        """
        v = self.ridge_directions
        s = linear(x.to(v), v, -(v @ self.centre))
        inner = linear(s, v @ self.curvature @ v.T / 2)
        if self.powers:
            inner.addcmul_(s, psi(self.powers, s, divided=2))
        return inner.mul_(s).sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        """Return grad f(x) (..., d)."""
        y = x - self.centre
        return y @ self.curvature + psi(self.powers, y @ self.ridge_directions.T, 1) @ self.ridge_directions

    def derivative(self, x: Tensor, u: Tensor, order: int) -> Tensor:
        """Return D^order f(x)[u, ..., u], broadcasting x and u, order >= 1."""
        if order == 1:
            return (self.gradient(x) * u).sum(-1)
        y = x - self.centre
        ridges = psi(self.powers, y @ self.ridge_directions.T, order) * (u @ self.ridge_directions.T) ** order
        return ridges.sum(-1) + (((u @ self.curvature) * u).sum(-1) if order == 2 else 0.0)

    def grad_laplacian(self, x: Tensor, order: int = 1) -> Tensor:
        """Return grad(Lap^order f)(x) (..., d): V^T psi^(2 order + 1), since the v_j are unit vectors."""
        y = x - self.centre
        return psi(self.powers, y @ self.ridge_directions.T, 2 * order + 1) @ self.ridge_directions

    def hessian(self, x: Tensor) -> Tensor:
        """Return D^2 f(x) (d, d)."""
        bent = self._line(x, 2)[:, None] * self.ridge_directions
        return self.curvature + self.ridge_directions.T @ bent

    def _high_ridges(self, x: Tensor, order: int) -> Ridges:
        return Ridges(self._line(x, order), self.ridge_directions)

    def _line(self, x: Tensor, order: int) -> Tensor:
        return psi(self.powers, self.ridge_directions @ (x - self.centre), order)


def ridge_polynomial(
    name: str,
    dim: int = 16,
    condition: float = 10.0,
    rotated: bool = True,
    cubic: float = 1.0,
    quartic: float = 4.0,
    sextic: float = 16.0,
    seed: int = 0,
) -> RidgePolynomial:
    """Return "quadratic", "cubic", "quartic" or "sextic": each adds its ridge power to those before it.

    The eigenvalues of A run geometrically from 1 / condition to 1; `rotated` gives A random eigenvectors. The cubic
    coefficient is lowered to what keeps the minimum at the centre where there is a quartic.

    Raises:
        UnknownNameError: no such problem.
        ValueError: dim < 1, condition < 1, or a negative quartic or sextic coefficient.
    """
    eigenvalues = spectrum(dim, condition)
    powers = chosen(name, float(eigenvalues[0]), cubic, quartic, sextic)
    axes = orthogonal(derive("axes", seed, dim), dim) if rotated else torch.eye(dim, dtype=torch.float64, device=CPU)
    hessian = axes.T @ torch.diag(eigenvalues) @ axes
    centre = normal(derive("centre", seed, dim), (dim,)) / dim**0.5
    directions = orthogonal(derive("ridges", seed, dim), dim)
    return RidgePolynomial(name, (hessian + hessian.T) / 2, directions, centre, powers)
