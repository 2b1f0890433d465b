"""Weights by the curvature along a line."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import roots_hermitenorm
from torch import Tensor

from zobench.maps.coefficient_map import CoefficientMap, Scalars
from zobench.maps.scores import Scores, Slopes
from zobench.numbers import flag, real, store
from zobench.stencil import Stencil, ThreePointStencil

NODES = 200


@dataclass(frozen=True)
class CurvatureWeight(CoefficientMap):
    """y_i = s_i / max(1, |c_i|^power), c_i = (f(x + e u_i) + f(x - e u_i) - 2 f(x)) / e^2: shorter steps along stiff
    lines. 1.5-SPSA, Chaubard, Kochenderfer and Re 2026, power 0.1.

    c has the units of the loss, so that the weight depends on them: a f has other weights than f. With `scale_free` it
    is |c_i| / median |c| in place of |c_i|, and y of a f is a y. On a linear f curvatures are noise, independent of the
    slopes: E[y t] is scale E[weight] (by quadrature; to leading order in 1/n where scale-free).

    Raises:
        ValueError: power is negative or not finite.
    """

    power: float = 0.1
    scale_free: bool = False

    def __post_init__(self) -> None:
        advice = "give the exponent of the curvature, 0 or more"
        store(self, power=real("power", self.power, advice, lambda power: power >= 0))
        store(self, scale_free=flag("scale_free", self.scale_free))

    def require_fit(self, n: int, stencil: Stencil) -> None:
        """Raise ValueError if the stencil does not look at both ends and at the base point."""
        if not isinstance(stencil, ThreePointStencil):
            raise ValueError(
                f"CurvatureWeight needs f(x + e u), f(x - e u) and f(x), but the stencil is {stencil!r}: give a "
                "ThreePointStencil"
            )

    def __call__(self, scalars: Scalars) -> Tensor:
        """Return the weighted slopes."""
        up, down, base = scalars.losses.unbind(-1)
        curvature = ((up + down - 2 * base) / scalars.offsets[..., 0] ** 2).abs()
        if self.scale_free:
            median = curvature.median(-1, keepdim=True).values
            curvature = torch.where(median > 0, curvature / median, torch.ones_like(curvature))
        return scalars.slopes / (curvature**self.power).clamp(min=1.0)

    def scores(self, n: int, slopes: Slopes) -> Scores:
        """Return the moments: those of the identity, times the moments of the weight."""
        one, square, pair = self._weights(slopes)
        return Scores(
            slopes.scale * one,
            (slopes.scale**2 + slopes.shift**2) * square,
            (3 * slopes.scale**2 + slopes.shift**2) * square,
            slopes.scale**2 * pair,
            "leading order in 1/n" if self.scale_free and slopes.base + slopes.even else "exact",
        )

    def _weights(self, slopes: Slopes) -> tuple[float, float, float]:
        """E[w_1], E[w_1^2] and E[w_1 w_2] of c = 2 (even v - base w) / epsilon."""
        if not slopes.even + slopes.base:
            return 1.0, 1.0, 1.0
        nodes, masses = roots_hermitenorm(NODES)
        masses = masses / masses.sum()
        c = 2 / slopes.epsilon * np.abs(slopes.even * nodes[None, :] - slopes.base * nodes[:, None])
        if self.scale_free:
            c = c / (0.6744897501960817 * 2 / slopes.epsilon * np.hypot(slopes.even, slopes.base))
        weights = 1 / np.maximum(1.0, c**self.power)
        given = weights @ masses  # on the noise of the base point
        return float(masses @ given), float(masses @ (weights**2 @ masses)), float(masses @ given**2)
