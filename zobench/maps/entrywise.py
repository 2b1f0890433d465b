"""Maps of each slope alone."""

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from zobench.maps.coefficient_map import CoefficientMap, Scalars
from zobench.maps.scores import Scores, Slopes
from zobench.numbers import real, store

NODES = 80  # of the Gauss-Hermite rule over the noise of a shared base point


@dataclass(frozen=True)
class Entrywise(CoefficientMap):
    """A map y_i = h(s_i) with |h| bounded; a slope that is NaN gives 0."""

    @property
    def bounded(self) -> bool:
        """True."""
        return True

    @abstractmethod
    def given(self, scale: float, shift: float) -> tuple[float, float, float]:
        """Return E[y t], E[y^2] and E[y^2 t^2] for y = h(scale t + shift)."""

    def scores(self, n: int, slopes: Slopes) -> Scores:
        """Return the moments; given the noise of a shared base point the lines are independent, over which the mean is
        taken by quadrature.
        """
        if not slopes.shared:
            mean, square, fourth = self.given(slopes.scale, slopes.shift)
            return Scores(mean, square, fourth, mean**2)
        nodes, masses = np.polynomial.hermite_e.hermegauss(NODES)
        rows = np.array([self.given(slopes.scale, slopes.shift + slopes.shared * w) for w in nodes])
        mean, square, fourth = masses @ rows / masses.sum()
        return Scores(float(mean), float(square), float(fourth), float(masses @ rows[:, 0] ** 2 / masses.sum()))


@dataclass(frozen=True)
class Sign(Entrywise):
    """y_i = sign(s_i): steps of one length along each line, whatever the scale of the loss, that follow the majority.

    E[y t] = sqrt(2 / pi) for slopes without a shift, so that g keeps sqrt(2 / pi) of a unit vector along the gradient,
    and E|g|^2 = d / n + (1 - 1/n) 2 / pi. Source: ZO-SGD-Sign of ZO-Bench, Zhang et al. 2024, arXiv 2402.11592. The
    sign of each entry of the estimate is the rule `SignSGD`.
    """

    def __call__(self, scalars: Scalars) -> Tensor:
        """Return the signs of the slopes."""
        return torch.nan_to_num(scalars.slopes, nan=0.0).sign()

    def given(self, scale: float, shift: float) -> tuple[float, float, float]:
        """E[y t] = 2 phi(shift / scale)."""
        return 2 * _density(shift / scale), 1.0, 1.0


@dataclass(frozen=True)
class Clip(Entrywise):
    """y_i = max(-bound, min(s_i, bound)): slopes within the bound are left as they are.

    E[y t] = scale P(|s| < bound): the share of slopes that are not clipped is the share of the mean that is left.
    Source: QZO, Shang et al. 2025, arXiv 2505.13430, bound 100.

    Raises:
        ValueError: bound is not positive.
    """

    bound: float = 100.0

    def __post_init__(self) -> None:
        advice = "give the largest slope that a line may have, a positive number"
        store(self, bound=real("bound", self.bound, advice, lambda bound: bound > 0))

    def __call__(self, scalars: Scalars) -> Tensor:
        """Return the clipped slopes."""
        return torch.nan_to_num(scalars.slopes, nan=0.0, posinf=self.bound, neginf=-self.bound).clamp(
            -self.bound, self.bound
        )

    def given(self, scale: float, shift: float) -> tuple[float, float, float]:
        """The moments of a normal that is clipped, from those of one that is truncated."""
        low, high = (-self.bound - shift) / scale, (self.bound - shift) / scale
        m0, m1, m2, m3, m4 = truncated(low, high)
        tails, tails2 = 1 - m0, 1 - m2
        square = scale**2 * m2 + 2 * scale * shift * m1 + shift**2 * m0 + self.bound**2 * tails
        fourth = scale**2 * m4 + 2 * scale * shift * m3 + shift**2 * m2 + self.bound**2 * tails2
        return scale * m0, square, fourth


def truncated(low: float, high: float) -> tuple[float, float, float, float, float]:
    """Return the integrals of t^k phi(t) from low to high, k = 0 ... 4."""
    a, b = _density(low), _density(high)
    m0, m1 = float(ndtr(high) - ndtr(low)), a - b
    m2 = m0 + low * a - high * b
    m3 = 2 * m1 + low**2 * a - high**2 * b
    return m0, m1, m2, m3, 3 * m2 + low**3 * a - high**3 * b


def _density(t: float) -> float:
    return math.exp(-t * t / 2) / math.sqrt(2 * math.pi)
