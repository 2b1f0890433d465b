"""psi(s) = sum_p c_p s^p / p!, the function of one variable that ridge and separable polynomials are built of."""

import math

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.naming import require_known

Powers = dict[int, float]

DEGREES = {"quadratic": (), "cubic": (3,), "quartic": (3, 4), "sextic": (3, 4, 6)}
"""Name -> the powers p with c_p != 0 in psi(s) = sum_p c_p s^p / p!."""


def psi(powers: Powers, s: Tensor, order: int = 0, divided: int = 0) -> Tensor:
    """Return the order-th derivative of psi at s, divided by s^divided; `powers` maps p to c_p. Horner's rule."""
    terms = [(p - order - divided, c / math.factorial(p - order)) for p, c in sorted(powers.items()) if p >= order]
    if not terms:
        return torch.zeros_like(s)
    value, power = torch.tensor(terms[-1][1], dtype=s.dtype, device=CPU), terms[-1][0]
    for lower, coefficient in [*reversed(terms[:-1]), (0, 0.0)]:
        for _ in range(power - lower):
            value = value * s
        value, power = value + coefficient if coefficient else value, lower
    return value.expand_as(s)


def minimal_at_zero(powers: Powers, curvature: float) -> bool:
    """Return whether curvature s^2 / 2 + psi(s) is proven least at s = 0: c_3^2 <= 3 curvature c_4, even powers only
    above, none negative.
    """
    cubic, quartic = powers.get(3, 0.0), powers.get(4, 0.0)
    return cubic**2 <= 3 * curvature * quartic and min(quartic, powers.get(6, 0.0)) >= 0


def spectrum(dim: int, condition: float) -> Tensor:
    """Return eigenvalues (dim,) that run geometrically from 1 / condition to 1.

    Raises:
        ValueError: dim < 1 or condition < 1.
    """
    if dim < 1 or not condition >= 1:
        raise ValueError(f"dim is {dim}, condition {condition}: give dim >= 1 and condition >= 1")
    return torch.logspace(-math.log10(condition), 0.0, dim, dtype=torch.float64, device=CPU)


def chosen(name: str, curvature: float, cubic: float, quartic: float, sextic: float) -> Powers:
    """Return the powers of a named degree, the cubic lowered to what keeps the minimum at 0 where there is a quartic.

    Raises:
        UnknownNameError: no such degree.
        ValueError: a negative quartic or sextic coefficient.
    """
    require_known(name, DEGREES, "problem")
    if quartic < 0 or sextic < 0:
        raise ValueError(f"quartic is {quartic}, sextic {sextic}: with negative values the problem has no minimum")
    given = {3: cubic, 4: quartic, 6: sextic}
    powers = {p: given[p] for p in DEGREES[name]}
    if 4 in powers:
        bound = math.sqrt(3 * curvature * quartic)
        powers[3] = max(-bound, min(cubic, bound))
    return powers
