"""Polynomial kernels under a uniform r: those of the literature.

Construction: Polyak and Tsybakov 1990; Bach and Perchet 2016; Akhavan, Pontil and Tsybakov 2020, arXiv 2006.07862.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor

from zobench.kernels.kernel import Kernel, Rule, require_order, require_ratio, require_scale
from zobench.numbers import real, store
from zobench.random import streams
from zobench.random.streams import Shape

TOLERANCE = 1e-13  # of the sum of |coefficients|, whose rounding is of the order of 1e-16
HORNER_DEGREE = 7  # error 1e-14 of the root mean square of a Legendre kernel; 1e-10 at 15, 1e-6 at 31

Number = float | Fraction


@dataclass(frozen=True, repr=False)
class PolynomialKernel(Kernel):
    """A polynomial kernel K(r) = sum_i coefficients_i r^i under r ~ Uniform[-reach, reach].

    Moments are computed in rational arithmetic and rounded once.

    Args:
        name: the expression that makes the kernel, and its repr.
        coefficients: those of r^0, r^1, ...; a Fraction stays exact.
        order: the largest q with E[r^j K] = 0 for odd 3 <= j <= q.
        constant: E[r K].
        checked: whether these conditions are checked; False for kernels of the literature that violate them.
        reach: the end s of the interval [-s, s] of r.

    Raises:
        ValueError: a moment condition does not hold, or the polynomial is not odd or not finite.
    """

    name: str
    coefficients: tuple[Number, ...]
    order: int
    constant: float = 1.0
    checked: bool = True
    reach: float = 1.0

    def __post_init__(self) -> None:
        name, advice = f"a coefficient of kernel {self.name}", "a finite odd polynomial is wanted"
        exact = tuple(c if isinstance(c, Fraction) else real(name, c, advice) for c in self.coefficients)
        store(self, coefficients=exact, order=require_order(self.order), reach=require_scale(self.reach))
        store(self, constant=real("constant", self.constant, "give a finite E[r K]"))
        if any(self.coefficients[::2]):
            raise ValueError(f"kernel {self.name}: {advice}, got {self.coefficients}")
        if self.checked:
            self._check_moments()

    def _check_moments(self) -> None:
        scale = sum(abs(float(c)) * self.reach ** (i + 1) for i, c in enumerate(self.coefficients))
        for j in range(1, self.order + 1, 2):
            wanted = self.constant if j == 1 else 0.0
            if not abs(self.moment(j) - wanted) <= TOLERANCE * max(scale, 1.0) * self.reach ** (j - 1):
                raise ValueError(f"kernel {self.name}: E[r^{j} K] is {self.moment(j):.12g}, not {wanted:g}")

    def __repr__(self) -> str:
        return self.name

    def __call__(self, r: Tensor) -> Tensor:
        """Return K(r): by Horner's rule in r^2, at high order by Clenshaw's on Legendre polynomials, which is as
        accurate at any order.
        """
        if len(self.coefficients) > HORNER_DEGREE + 1:
            return torch.from_numpy(np.polynomial.legendre.legval((r / self.reach).numpy(), self._legendre_series))
        square = r * r
        *lower, leading = (float(c) for c in self.coefficients[1::2])
        value = torch.full_like(r, leading)
        for coefficient in reversed(lower):
            value = value.mul_(square).add_(coefficient)
        return value * r

    @cached_property
    def _exact(self) -> tuple[Fraction, ...]:
        return tuple(Fraction(c) for c in self.coefficients)

    @cached_property
    def _legendre_series(self) -> list[float]:
        """Coefficients of P_m(r / reach): (2 m + 1) E[K P_m]."""
        unit = [c * Fraction(self.reach) ** i for i, c in enumerate(self._exact)]
        degrees = range(len(unit))
        return [float((2 * m + 1) * _mean(_product(unit, _legendre_polynomial(m)))) for m in degrees]

    def draw(self, key: int, shape: Shape) -> tuple[Tensor, Tensor]:
        """Return r ~ Uniform[-reach, reach] and K(r)."""
        r = streams.uniform(key, shape)
        if self.reach != 1.0:
            r.mul_(self.reach)
        return r, self(r)

    def quadrature(self, degree: int) -> Rule:
        """Return the Gauss-Legendre rule that is exact for r^degree K^2."""
        polynomial_degree = degree + 2 * (len(self.coefficients) - 1)
        nodes, weights = np.polynomial.legendre.leggauss(polynomial_degree // 2 + 1)
        r = torch.from_numpy(nodes) * self.reach
        return Rule(torch.from_numpy(weights / 2), r, self(r))

    def moment(self, j: int) -> float:
        """Return E[r^j K(r)], from E[r^k] = reach^k / (k + 1) for even k."""
        return float(_mean(self._exact, j, self.reach))

    def second_moment(self, noise_to_gradient: float = 0.0) -> float:
        """Return E[r^2 K^2] + t E[K^2]."""
        slope, noise = self._second_moments
        return slope + require_ratio(noise_to_gradient) * noise

    @cached_property
    def _second_moments(self) -> tuple[float, float]:
        square = _product(self._exact, self._exact)
        return float(_mean(square, 2, self.reach)), float(_mean(square, 0, self.reach))

    def rescaled(self, scale: float) -> "PolynomialKernel":
        """Return K(r / s) / s under r ~ Uniform[-s reach, s reach]."""
        coefficients = tuple(c / Fraction(scale) ** (i + 1) for i, c in enumerate(self._exact))
        name = f"rescaled({self.name}, {scale!r})"
        return replace(self, name=name, coefficients=coefficients, reach=scale * self.reach)


def shrunk(kernel: Kernel, scale: float) -> PolynomialKernel:
    """Return the same K under r ~ Uniform[-s, s], s = `scale` times the reach of the kernel: the interval shrinks, the
    kernel does not. A port of KerZOO's code does so, with scale = max(1 - step / 4000, 1e-4).

    The result is not the kernel at another epsilon; that of `rescaled` is. For K(r) = C (15/4) r (5 - 7 r^2):
    E[r K] = C (15/4) (5 s^2/3 - 7 s^4/5): 625/336 C = 1.86 C at s = sqrt(25/42), its maximum, 1.23 C at 1/2, 0.063 C
    at 0.1: a hidden schedule of the learning rate; E[r^3 K] / E[r K] is 0 at s = 1 only: 0.289 at 0.9, 0.142 at 1/2, so
    that the bias is again of order e^2; E[r^2 K^2] / E[r K]^2 falls from 6.25 to 1.41 at 0.77 and then tends to 9/5,
    that of K = 3 r.

    Raises:
        ValueError: `scale` is not positive and finite, or the kernel is not a polynomial one.
    """
    scale = require_scale(scale)
    if not isinstance(kernel, PolynomialKernel):
        raise ValueError(f"kernel is {kernel!r}: only a polynomial kernel can be moved to another interval")
    if scale == 1.0:
        return kernel
    return replace(kernel, name=f"shrunk({kernel.name}, {scale!r})", reach=scale * kernel.reach, checked=False)


def legendre(order: int, constant: float = 1.0) -> PolynomialKernel:
    """Return K(r) = C sum_{m <= order} p_m'(0) p_m(r), with p_m the Legendre polynomials orthonormal under Uniform[-1,
    1].

    For every polynomial q of degree at most `order`, E[K q] = C q'(0): hence E[r K] = C and E[r^j K] = 0 for 2 <= j <=
    order. Order 1 is 3 r, order 3 is (15/4) r (5 - 7 r^2), order 5 is (105/64) r (99 r^4 - 126 r^2 + 35). Coefficients
    are exact rationals at any order. E[K^2] is 3, 18.75, 57.4 and grows as order^3; `chebyshev` has order^2.

    Source: Bach and Perchet 2016; Akhavan, Pontil and Tsybakov 2020, arXiv 2006.07862.

    Raises:
        ValueError: `order` is not an odd positive integer, or `constant` is not finite.
    """
    order, constant = require_order(order), real("constant", constant, "give a finite E[r K]")
    exact = tuple(Fraction(constant) * c for c in _legendre_kernel(order))
    return PolynomialKernel(named("legendre", str(order), constant), exact, order, constant)


def kerzoo5_as_printed(constant: float = 1.0) -> PolynomialKernel:
    """Return the order-5 kernel as printed in KerZOO: (195/64) C r (99 r^4 - 126 r^2 + 35), with E[r K] = 13/7 C.

    A misprint of `legendre(5)`, whose factor is 105/64: used as printed it multiplies the learning rate by 13/7.
    Source: arXiv 2505.18886.

    Raises:
        ValueError: `constant` C is not finite.
    """
    constant = real("constant", constant, "give a finite factor")
    printed = tuple(constant * 195 / 64 * c for c in (0.0, 35.0, 0.0, -126.0, 0.0, 99.0))
    name = named("kerzoo5_as_printed", "", constant)
    return PolynomialKernel(name, printed, order=5, constant=constant, checked=False)


def named(name: str, arguments: str, constant: float) -> str:
    """Return the expression that makes the kernel: its repr."""
    listed = [arguments] * bool(arguments) + [f"constant={constant!r}"] * (constant != 1.0)
    return f"{name}({', '.join(listed)})"


def _mean(coefficients: Iterable[Fraction], power: int = 0, reach: float = 1.0) -> Fraction:
    """E[r^power p(r)] under Uniform[-reach, reach]."""
    s = Fraction(reach)
    terms = (c * s ** (i + power) / (i + power + 1) for i, c in enumerate(coefficients) if (i + power) % 2 == 0)
    return sum(terms, Fraction(0))


def _product(left: Sequence[Fraction], right: Sequence[Fraction]) -> list[Fraction]:
    product = [Fraction(0)] * (len(left) + len(right) - 1)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            product[i + j] += a * b
    return product


@lru_cache(maxsize=64)
def _legendre_kernel(order: int) -> tuple[Fraction, ...]:
    total = [Fraction(0)] * (order + 1)
    for m in range(1, order + 1, 2):
        polynomial = _legendre_polynomial(m)
        for power, coefficient in enumerate(polynomial):
            total[power] += (2 * m + 1) * polynomial[1] * coefficient
    return tuple(total)


@lru_cache(maxsize=256)
def _legendre_polynomial(degree: int) -> tuple[Fraction, ...]:
    """Coefficients of P_degree, from (m + 1) P_{m+1} = (2 m + 1) r P_m - m P_{m-1}."""
    previous, current = [Fraction(0)], [Fraction(1)]
    for m in range(degree):
        raised = [Fraction(2 * m + 1, m + 1) * c for c in [Fraction(0), *current]]
        lowered = [Fraction(m, m + 1) * c for c in previous] + [Fraction(0)] * (len(raised) - len(previous))
        previous, current = current, [a - b for a, b in zip(raised, lowered, strict=True)]
    return tuple(current)
