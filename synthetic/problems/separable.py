"""Separable problems: f(x) = sum_i phi_i(x_i), so that every derivative is one along the axes."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from synthetic.problems.draws import normal
from synthetic.problems.exact import ExactProblem
from synthetic.problems.psi import Powers, chosen, minimal_at_zero, psi, spectrum
from zobench.layout import CPU
from zobench.problem import Ridges
from zobench.random.keys import derive


class Separable(ExactProblem):
    """f(x) = sum_i phi_i(x_i); a subclass gives the derivatives of the phi_i. Everything costs O(d)."""

    @abstractmethod
    def phi(self, x: Tensor, order: int) -> Tensor:
        """Return the order-th derivative of phi_i at x_i, for each entry of x (..., d); order 0 is phi itself."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x) (...)."""
        return self.phi(x.double(), 0).sum(-1)

    def gradient(self, x: Tensor) -> Tensor:
        """Return grad f(x) (..., d)."""
        return self.phi(x.double(), 1)

    def hessian(self, x: Tensor) -> Tensor:
        """Return D^2 f(x) (d, d), diagonal."""
        return torch.diag(self.phi(x.double(), 2))

    def derivative(self, x: Tensor, u: Tensor, order: int) -> Tensor:
        """Return D^order f(x)[u, ..., u], broadcasting x and u, order >= 1."""
        return (self.phi(x.double(), order) * u.double() ** order).sum(-1)

    def grad_laplacian(self, x: Tensor, order: int = 1) -> Tensor:
        """Return grad(Lap^order f)(x) (..., d)."""
        return self.phi(x.double(), 2 * order + 1)

    def ridges(self, x: Tensor, order: int) -> Ridges:
        """Return D^order f(x) as powers of the coordinates of u; at order 1, the gradient."""
        return super().ridges(x, 1) if order == 1 else Ridges(self.phi(x.double(), order), self.axes)

    @cached_property
    def axes(self) -> Tensor:
        """The identity (dim, dim), the same object for every order."""
        return torch.eye(self.dim, dtype=torch.float64, device=CPU)


@dataclass(frozen=True, eq=False)
class SeparablePolynomial(Separable):
    """sum_i spectrum_i y_i^2 / 2 + psi(y_i), y = x - centre, psi(s) = c_3 s^3 / 6 + c_4 s^4 / 24 + c_6 s^6 / 720.

    `powers` maps p to c_p. With c_3^2 <= 3 min(spectrum) c_4 the minimum is 0, at the centre.
    """

    spectrum: Tensor
    centre: Tensor
    powers: Powers
    name: ClassVar[str] = "separable"

    @property
    def dim(self) -> int:
        """Number of variables."""
        return self.spectrum.shape[0]

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return max(self.powers, default=2)

    @property
    def minimum(self) -> float | None:
        """The least value, 0, where the coefficients prove it; else None."""
        return 0.0 if minimal_at_zero(self.powers, float(self.spectrum.min())) else None

    @property
    def smoothness(self) -> float | None:
        """The largest eigenvalue of the Hessian of a quadratic; None above degree 2."""
        return None if self.powers else float(self.spectrum.max())

    def phi(self, x: Tensor, order: int) -> Tensor:
        """Return the order-th derivative of spectrum_i y_i^2 / 2 + psi(y_i)."""
        y = x - self.centre
        if order == 0:
            return (self.spectrum / 2 + psi(self.powers, y, 0, divided=2)) * y * y
        quadratic = self.spectrum * y if order == 1 else self.spectrum if order == 2 else 0.0
        return quadratic + psi(self.powers, y, order)


def separable_polynomial(
    degree: str = "sextic",
    dim: int = 16,
    condition: float = 10.0,
    cubic: float = 1.0,
    quartic: float = 4.0,
    sextic: float = 16.0,
    seed: int = 0,
) -> SeparablePolynomial:
    """Return a separable polynomial, degree "quadratic", "cubic", "quartic" or "sextic", with a spectrum that runs
    geometrically from 1 / condition to 1.

    Raises:
        UnknownNameError: no such degree.
        ValueError: dim < 1, condition < 1, or a negative quartic or sextic coefficient.
    """
    eigenvalues = spectrum(dim, condition)
    powers = chosen(degree, float(eigenvalues[0]), cubic, quartic, sextic)
    return SeparablePolynomial(eigenvalues, normal(derive("centre", seed, dim), (dim,)) / dim**0.5, powers)


@dataclass(frozen=True)
class StyblinskiTang(Separable):
    """sum_i (x_i^4 - 16 x_i^2 + 5 x_i) / 2: a quartic with two minima on each axis, on [-5, 5]^d.

    The least value is -39.16616570377142 d, at x_i = -2.903534027771177. Source: Styblinski and Tang 1990.
    """

    dim: int = 16
    name: ClassVar[str] = "styblinski-tang"

    @property
    def degree(self) -> int:
        """4."""
        return 4

    @property
    def centre(self) -> Tensor:
        """The minimizer: the least root of 4 x^3 - 32 x + 5, by Newton steps from -3."""
        root = -3.0
        for _ in range(8):
            root -= (4 * root**3 - 32 * root + 5) / (12 * root**2 - 32)
        return torch.full((self.dim,), root, dtype=torch.float64, device=CPU)

    @property
    def radius(self) -> float:
        """Half a unit along each axis."""
        return 0.5 * math.sqrt(self.dim)

    @property
    def minimum(self) -> float:
        """The value at the minimizer."""
        return float(self(self.centre))

    def phi(self, x: Tensor, order: int) -> Tensor:
        """Return the order-th derivative of (x^4 - 16 x^2 + 5 x) / 2."""
        square = x * x
        match order:
            case 0:
                return ((square - 16.0) * square + 5.0 * x) / 2
            case 1:
                return (2.0 * square - 16.0) * x + 2.5
            case 2:
                return 6.0 * square - 16.0
            case 3:
                return 12.0 * x
        return torch.full_like(x, 12.0 if order == 4 else 0.0)


@dataclass(frozen=True)
class Rastrigin(Separable):
    """sum_i x_i^2 + A (1 - cos(2 pi x_i)), on [-5.12, 5.12]^d: a local minimum near each point with whole coordinates.

    The least value is 0, at 0. Source: Rastrigin 1974.
    """

    dim: int = 16
    amplitude: float = 10.0
    name: ClassVar[str] = "rastrigin"

    @property
    def centre(self) -> Tensor:
        """The minimizer, 0."""
        return torch.zeros(self.dim, dtype=torch.float64, device=CPU)

    @property
    def radius(self) -> float:
        """A fifth of a period along each axis."""
        return 0.2 * math.sqrt(self.dim)

    @property
    def minimum(self) -> float:
        """0."""
        return 0.0

    @property
    def smoothness(self) -> float:
        """2 + 4 pi^2 A."""
        return 2.0 + 4 * math.pi**2 * self.amplitude

    def phi(self, x: Tensor, order: int) -> Tensor:
        """Return the order-th derivative of x^2 + A (1 - cos(2 pi x)) = x^2 + 2 A sin(pi x)^2."""
        ripples = 2 * self.amplitude * _sine_square(math.pi, 0.0, x, order)
        if order > 2:
            return ripples
        return ripples + (x * x if order == 0 else 2 * x if order == 1 else 2.0)


@dataclass(frozen=True)
class Levy(Separable):
    """sin(pi w_1)^2 + sum_{i < d} v_i^2 (1 + 10 sin(pi w_i + 1)^2) + v_d^2 (1 + sin(2 pi w_d)^2) with v = (x - 1) / 4
    and w = 1 + v, on [-10, 10]^d.

    The least value is 0, at x = (1, ..., 1). Source: Levy and Montalvo 1985; Laguna and Marti 2005.
    """

    dim: int = 16
    name: ClassVar[str] = "levy"

    @property
    def centre(self) -> Tensor:
        """The minimizer, ones."""
        return torch.ones(self.dim, dtype=torch.float64, device=CPU)

    @property
    def radius(self) -> float:
        """Half a unit along each axis."""
        return 0.5 * math.sqrt(self.dim)

    @property
    def minimum(self) -> float:
        """0."""
        return 0.0

    def phi(self, x: Tensor, order: int) -> Tensor:
        """Return the order-th derivative: that of a product with v^2, by Leibniz' rule."""
        v = (x - 1.0) / 4
        bowls = v * v * self._wave(v, order)
        if order >= 1:
            bowls = bowls + 2 * order * v * self._wave(v, order - 1)
        if order >= 2:
            bowls = bowls + order * (order - 1) * self._wave(v, order - 2)
        first = torch.zeros_like(v)
        first[..., 0] = _sine_square(math.pi, 0.0, v[..., 0], order)
        return (bowls + first) / 4**order

    def _wave(self, v: Tensor, order: int) -> Tensor:
        """The order-th derivative, in v, of what v^2 is multiplied with; sin(pi w + a)^2 = sin(pi v + a)^2."""
        inner = 10.0 * _sine_square(math.pi, 1.0, v[..., :-1], order)
        last = _sine_square(2 * math.pi, 0.0, v[..., -1:], order)
        return torch.cat((inner, last), -1) + (1.0 if order == 0 else 0.0)


def _sine_square(rate: float, phase: float, x: Tensor, order: int) -> Tensor:
    """The order-th derivative of sin(rate x + phase)^2 = (1 - cos(2 rate x + 2 phase)) / 2."""
    if order == 0:
        return (rate * x + phase).sin().square()
    angle = 2 * (rate * x + phase)
    sign = (-1.0, 1.0, 1.0, -1.0)[order % 4]
    return (2 * rate) ** order * sign / 2 * (angle.sin() if order % 2 else angle.cos())
