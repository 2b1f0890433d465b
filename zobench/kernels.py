"""Kernels K(r) of a random node r, with E[r K] = 1 and, at order q, E[r^j K] = 0 for odd 3 <= j <= q.

The estimate K(r) [f(x + e r u) - f(x - e r u)] / (2 e) u then has a bias of order e^(q+1), because the Taylor terms of
odd order up to q average out over r. Construction: Polyak and Tsybakov 1990; Bach and Perchet 2016; Akhavan et al.
2020, arXiv 2006.07862.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zobench import streams
from zobench.streams import Shape

TOLERANCE = 1e-10


class Rule(NamedTuple):
    """A quadrature rule in r: probabilities (Q,), nodes r (Q,) and kernel values K(r) (Q,)."""

    probabilities: Tensor
    nodes: Tensor
    values: Tensor


class Kernel(ABC):
    """A law of r on [-1, 1], symmetric about 0, and an odd function K of it."""

    @abstractmethod
    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return independent nodes r and K(r), both float64 of `shape`."""

    @abstractmethod
    def quadrature(self, degree: int) -> Rule:
        """Return a rule that integrates r^i K(r)^j exactly for i <= degree and j <= 2."""

    @abstractmethod
    def moment(self, j: int) -> float:
        """Return E[r^j K(r)]."""

    @abstractmethod
    def second_moment(self, noise_to_gradient: float = 0.0) -> float:
        """Return E[r^2 K^2] + t E[K^2]: the second moment of the estimate against that of r = K = 1, times 1 + t.

        t is d s^2 / (2 e^2 c_d |grad f|^2), with s the standard deviation of one evaluation.
        """


@dataclass(frozen=True, repr=False)
class PolynomialKernel(Kernel):
    """A polynomial kernel under r ~ Uniform[-1, 1].

    `coefficients` ascend from r^0. `order` is the largest q for which the moment conditions are meant to hold; E[r K] =
    `constant` and the conditions are checked at construction unless `checked` is False, which only a misprint needs.

    Raises:
        ValueError: a moment condition does not hold, or the polynomial is not odd.
    """

    name: str
    coefficients: tuple[float, ...]
    order: int
    constant: float = 1.0
    checked: bool = True

    def __post_init__(self) -> None:
        _require_order(self.order)
        if any(self.coefficients[::2]):
            raise ValueError(f"kernel {self.name}: an odd polynomial is wanted, got {self.coefficients}")
        if self.checked:
            self._check_moments()

    def _check_moments(self) -> None:
        for j in range(1, self.order + 1, 2):
            wanted = self.constant if j == 1 else 0.0
            scale = sum(abs(c) for c in self.coefficients)
            if not abs(self.moment(j) - wanted) <= TOLERANCE * max(scale, 1.0):
                raise ValueError(f"kernel {self.name}: E[r^{j} K] is {self.moment(j):.12g}, not {wanted:g}")

    def __repr__(self) -> str:
        return self.name

    def __call__(self, r: Tensor) -> Tensor:
        """Return K(r), by Horner's rule in r^2."""
        square = r * r
        *lower, leading = self.coefficients[1::2]
        value = torch.full_like(r, leading)
        for coefficient in reversed(lower):
            value = value.mul_(square).add_(coefficient)
        return value * r

    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return r ~ Uniform[-1, 1] and K(r)."""
        r = streams.uniform(key, shape)
        return r, self(r)

    def quadrature(self, degree: int) -> Rule:
        """Return the Gauss-Legendre rule that is exact for r^degree K^2."""
        polynomial_degree = degree + 2 * (len(self.coefficients) - 1)
        nodes, weights = np.polynomial.legendre.leggauss(polynomial_degree // 2 + 1)
        r = torch.from_numpy(nodes)
        return Rule(torch.from_numpy(weights / 2), r, self(r))

    def moment(self, j: int) -> float:
        """Return E[r^j K(r)], from E[r^k] = 1 / (k + 1) for even k."""
        return _mean_of_powers(self.coefficients, j)

    def second_moment(self, noise_to_gradient: float = 0.0) -> float:
        """Return E[r^2 K^2] + t E[K^2]."""
        square = tuple(np.convolve(self.coefficients, self.coefficients))
        return _mean_of_powers(square, 2) + noise_to_gradient * _mean_of_powers(square, 0)


def _mean_of_powers(coefficients: tuple[float, ...], j: int) -> float:
    return float(sum(c / (i + j + 1) for i, c in enumerate(coefficients) if (i + j) % 2 == 0))


def legendre(order: int, constant: float = 1.0) -> PolynomialKernel:
    """Return K(r) = C sum_{m <= order} p_m'(0) p_m(r), with p_m the Legendre polynomials orthonormal under Uniform[-1,
    1].

    For every polynomial q of degree at most `order`, E[K q] = C q'(0): hence E[r K] = C and E[r^j K] = 0 for 2 <= j <=
    order. Order 1 is 3 r, order 3 is (15/4) r (5 - 7 r^2), order 5 is (105/64) r (99 r^4 - 126 r^2 + 35).

    Raises:
        ValueError: `order` is not an odd positive integer.
    """
    order = _require_order(order)
    total = [Fraction(0)] * (order + 1)
    for m in range(1, order + 1, 2):
        polynomial = _legendre_polynomial(m)
        for power, coefficient in enumerate(polynomial):
            total[power] += (2 * m + 1) * polynomial[1] * coefficient
    name = _named("legendre", str(order), constant)
    return PolynomialKernel(name, tuple(constant * float(c) for c in total), order, constant)


def _require_order(order: int) -> int:
    if not isinstance(order, int | float) or order < 1 or order % 2 != 1:
        raise ValueError(f"kernel order {order!r}: give an odd order 1, 3, 5, ...; even moments vanish by symmetry")
    return int(order)


def _named(name: str, order: str, constant: float) -> str:
    """The expression that makes the kernel: its repr."""
    arguments = [order] * bool(order) + [f"constant={constant!r}"] * (constant != 1.0)
    return f"{name}({', '.join(arguments)})"


def _legendre_polynomial(degree: int) -> list[Fraction]:
    """Coefficients of P_degree, from (m + 1) P_{m+1} = (2 m + 1) r P_m - m P_{m-1}."""
    previous, current = [Fraction(0)], [Fraction(1)]
    for m in range(degree):
        raised = [Fraction(2 * m + 1, m + 1) * c for c in [Fraction(0), *current]]
        lowered = [Fraction(m, m + 1) * c for c in previous] + [Fraction(0)] * (len(raised) - len(previous))
        previous, current = current, [a - b for a, b in zip(raised, lowered, strict=True)]
    return current


def kerzoo5_as_printed(constant: float = 1.0) -> PolynomialKernel:
    """Return the order-5 kernel as printed in KerZOO: (195/64) C r (99 r^4 - 126 r^2 + 35), with E[r K] = 13/7 C.

    A misprint of `legendre(5)`, whose factor is 105/64: used as printed it multiplies the learning rate by 13/7.
    Source: arXiv 2505.18886.
    """
    printed = tuple(constant * 195 / 64 * c for c in (0.0, 35.0, 0.0, -126.0, 0.0, 99.0))
    return PolynomialKernel(
        _named("kerzoo5_as_printed", "", constant), printed, order=5, constant=constant, checked=False
    )
