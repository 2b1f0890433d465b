"""Polynomials whose value, gradient, Laplacians and line moments are exact.

f(x) = 1/2 y^T A y + sum_j psi(v_j . y), y = x - centre, psi(s) = c3 s^3 / 6 + c4 s^4 / 24 + c6 s^6 / 720, with v_j the
rows of a random orthogonal matrix V: the ridges couple all coordinates. A has a chosen spectrum and eigenvectors of its
own, or the axes.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from zobench import streams
from zobench.keys import derive
from zobench.naming import require_known

DEGREES = {"quadratic": (), "cubic": (3,), "quartic": (3, 4), "sextic": (3, 4, 6)}
GAUSSIAN_MOMENTS = {0: 1.0, 2: 1.0, 4: 3.0, 6: 15.0, 8: 105.0, 10: 945.0, 12: 10395.0}


@dataclass(frozen=True, eq=False)
class RidgePolynomial:
    """A polynomial of degree 2, 3, 4 or 6 in `dim` variables, batched: x (..., d) -> (...).

    `ridges` maps a power p to c_p. With the quartic strong enough for the cubic (c3^2 <= 3 lambda_min c4) the minimum
    is 0, at the centre.
    """

    name: str
    hessian: Tensor  # A: the Hessian at the centre
    ridge_directions: Tensor
    centre: Tensor
    ridges: dict[int, float]

    @property
    def dim(self) -> int:
        """Number of variables."""
        return self.centre.shape[0]

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return max(self.ridges, default=2)

    @property
    def smoothness(self) -> float:
        """Largest eigenvalue of the Hessian at the centre."""
        return float(torch.linalg.eigvalsh(self.hessian)[-1])

    @property
    def minimum(self) -> float | None:
        """The least value, 0, where the coefficients prove it; else None."""
        eigenvalues = torch.linalg.eigvalsh(self.hessian)
        least = float(eigenvalues[0] + 1e-13 * eigenvalues[-1])
        proven = self.ridges.get(3, 0.0) ** 2 <= 3 * least * self.ridges.get(4, 0.0)
        return 0.0 if proven and min(self.ridges.get(4, 0.0), self.ridges.get(6, 0.0)) >= 0 else None

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x), as sum_j s_j ((B s)_j / 2 + s_j p(s_j)) with s = V y, B = V A V^T and psi(s) = s^2 p(s): few
        passes over x.
        """
        v = self.ridge_directions
        s = linear(x.to(v), v, -(v @ self.centre))
        inner = linear(s, v @ self.hessian @ v.T / 2)
        if self.ridges:
            inner.addcmul_(s, self._series(s, 0, 2))
        return inner.mul_(s).sum(-1)

    value = __call__

    def gradient(self, x: Tensor) -> Tensor:
        """Return grad f(x) (..., d)."""
        y = x - self.centre
        return y @ self.hessian + self._psi(y @ self.ridge_directions.T, 1) @ self.ridge_directions

    def derivative(self, x: Tensor, u: Tensor, order: int) -> Tensor:
        """Return D^order f(x)[u, ..., u], broadcasting x and u, order >= 1."""
        if order == 1:
            return (self.gradient(x) * u).sum(-1)
        y = x - self.centre
        ridges = self._psi(y @ self.ridge_directions.T, order) * (u @ self.ridge_directions.T) ** order
        return ridges.sum(-1) + (((u @ self.hessian) * u).sum(-1) if order == 2 else 0.0)

    def grad_laplacian(self, x: Tensor, order: int = 1) -> Tensor:
        """Return grad(Lap^order f)(x) (..., d): V^T psi^(2 order + 1), since the v_j are unit vectors."""
        y = x - self.centre
        return self._psi(y @ self.ridge_directions.T, 2 * order + 1) @ self.ridge_directions

    def line_product(self, x: Tensor, a: int, b: int) -> float:
        """Return E[D^a f[u^a] D^b f[u^b]], u ~ N(0, I), at one point x (d,), for 2 <= a <= b of equal parity.

        With z = V u ~ N(0, I), D^a f[u^a] = sum_j p_j z_j^a for a > 2 and z^T B z for a = 2, and mixed odd moments of z
        vanish.
        """
        right = self._line(x, b)
        if a > 2:
            left = self._line(x, a)
            own, apart = GAUSSIAN_MOMENTS[a + b], GAUSSIAN_MOMENTS.get(a, 0.0) * GAUSSIAN_MOMENTS.get(b, 0.0)
            return float((own - apart) * (left @ right) + apart * left.sum() * right.sum())
        curvature = self.ridge_directions @ self.hessian @ self.ridge_directions.T + torch.diag(self._line(x, 2))
        if b == 2:
            return float(curvature.trace() ** 2 + 2 * curvature.square().sum())
        apart, own = GAUSSIAN_MOMENTS[b], GAUSSIAN_MOMENTS[b + 2]
        return float(apart * curvature.trace() * right.sum() + (own - apart) * (curvature.diagonal() @ right))

    def _line(self, x: Tensor, order: int) -> Tensor:
        return self._psi(self.ridge_directions @ (x - self.centre), order)

    def _psi(self, s: Tensor, order: int) -> Tensor:
        """The order-th derivative of psi at s."""
        return self._series(s, order, 0)

    def _series(self, s: Tensor, order: int, divided: int) -> Tensor:
        """The order-th derivative of psi at s, divided by s^divided."""
        ridges = sorted(self.ridges.items())
        terms = [(p - order - divided, c / math.factorial(p - order)) for p, c in ridges if p >= order]
        if not terms:
            return torch.zeros_like(s)
        value, power = torch.tensor(terms[-1][1], dtype=s.dtype), terms[-1][0]
        for lower, coefficient in [*reversed(terms[:-1]), (0, 0.0)]:
            for _ in range(power - lower):
                value = value * s
            value, power = value + coefficient if coefficient else value, lower
        return value.expand_as(s)


def make(
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
    require_known(name, DEGREES, "problem")
    if dim < 1 or not condition >= 1:
        raise ValueError(f"dim is {dim}, condition {condition}: give dim >= 1 and condition >= 1")
    if quartic < 0 or sextic < 0:
        raise ValueError(f"quartic is {quartic}, sextic {sextic}: negative ones leave the problem without a minimum")
    eigenvalues = torch.logspace(-math.log10(condition), 0.0, dim, dtype=torch.float64)
    axes = orthogonal(derive("axes", seed, dim), dim) if rotated else torch.eye(dim, dtype=torch.float64)
    hessian = axes.T @ torch.diag(eigenvalues) @ axes
    given: dict[int, float] = {3: cubic, 4: quartic, 6: sextic}
    ridges = {p: given[p] for p in DEGREES[name]}
    if 4 in ridges:
        bound = math.sqrt(3 * float(eigenvalues[0]) * quartic)
        ridges[3] = max(-bound, min(cubic, bound))
    centre = _normal(derive("centre", seed, dim), (dim,)) / dim**0.5
    directions = orthogonal(derive("ridges", seed, dim), dim)
    return RidgePolynomial(name, (hessian + hessian.T) / 2, directions, centre, ridges)


def orthogonal(key: int, dim: int) -> Tensor:
    """Return a random orthogonal matrix (dim, dim)."""
    q, r = torch.linalg.qr(_normal(key, (dim, dim)))
    return q * r.diagonal().sign()


def start(problem: Any, seed: int = 0) -> Tensor:
    """Return a point at about unit distance from the centre."""
    offset = _normal(derive("start", seed, problem.dim), (problem.dim,))
    return problem.centre + offset / problem.dim**0.5


def _normal(key: int, shape: tuple[int, ...]) -> Tensor:
    return streams.normal(key, shape, torch.float64, torch.device("cpu"))
