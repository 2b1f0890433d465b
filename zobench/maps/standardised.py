"""Maps that divide by the spread of a step: invariant under f -> a f + b."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.maps.coefficient_map import CoefficientMap, Scalars, require_several
from zobench.maps.scores import Scores, Slopes
from zobench.numbers import count, real, store
from zobench.stencil import CentralStencil, ForwardStencil, Stencil

FLOAT32 = 2.0**-24
FLOOR = "give the relative rounding error of a loss, at least 0 and below 1, such as 2**-24 of float32"


@dataclass(frozen=True)
class Standardised(CoefficientMap):
    """A map that divides by a spread over the lines of a step, bounded from below by `resolution` times the losses that
    it is made of: less is rounding. A spread of exactly 0 makes no step.

    Raises:
        ValueError: resolution is not in [0, 1).
    """

    resolution: float = FLOAT32

    def __post_init__(self) -> None:
        store(self, resolution=real("resolution", self.resolution, FLOOR, lambda r: 0 <= r < 1))

    def divided(self, values: Tensor, variance: Tensor, size: Tensor) -> Tensor:
        """Return values / max(spread, resolution * size), or 0 where the spread is 0; variance and size (*batch, 1)."""
        spread = variance.sqrt()
        return torch.where(spread > 0, values / torch.maximum(spread, self.resolution * size), torch.zeros_like(values))


@dataclass(frozen=True)
class ZScore(Standardised):
    """y_i = (s_i - mean s) / std s, std the population's: the fitness shaping of evolution strategies.

    With `groups` G the n lines are G groups in a row, each with a mean of its own, and std is pooled about these means
    (GRPO has one of each group). y is a uniform point on a sphere, so for a linear f, with nu = n - G,
        E[y t] = sqrt(2 / n) Gamma((nu + 1) / 2) / Gamma(nu / 2),    E[y^2] = 1,
    exact for any noise that lines do not share, and what they share drops out. Source: Salimans et al. 2017; Qiu et al.
    2025, arXiv 2509.24372.

    Raises:
        ValueError: groups is no positive integer; or as Standardised.
    """

    groups: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, groups=count("groups", self.groups, "give the number of groups of lines, from 1"))

    def require_fit(self, n: int, stencil: Stencil) -> None:
        """Raise ValueError if a group has one line, or groups differ in size."""
        require_several("ZScore", n, "subtracts the mean of a step's slopes")
        if n % self.groups or n // self.groups < 2:
            raise ValueError(f"groups is {self.groups}, n {n}: give groups of at least 2 lines, all of one size")

    def __call__(self, scalars: Scalars) -> Tensor:
        """Return the standardised slopes."""
        s = scalars.slopes
        grouped = s.reshape(*s.shape[:-1], self.groups, -1)
        apart = (grouped - grouped.mean(-1, keepdim=True)).reshape(s.shape)
        return self.divided(apart, apart.square().mean(-1, keepdim=True), s.abs().amax(-1, keepdim=True))

    def scores(self, n: int, slopes: Slopes) -> Scores:
        """Those of a uniform point on the sphere of radius sqrt(n) in n - G dimensions."""
        size, nu = n // self.groups, n - self.groups
        mean = math.sqrt(nu / n) * mean_length(nu)
        fourth = 1 / size + 3 * n / (nu + 2) * (1 - 1 / size) ** 2
        return Scores(mean, 1.0, fourth, (nu - fourth) / (n - 1))


@dataclass(frozen=True)
class LossSpread(Standardised):
    """y_i = (l_i - l_0) / std l, the population's standard deviation of the losses l_i = f(x + e u_i), l_0 = f(x).

    FZOO. Nothing is divided by epsilon: the learning rate is in units of displacement along u. Under Gaussian
    directions and a linear f, with r = E[1 / std t] = sqrt(n / 2) Gamma(n / 2 - 1) / Gamma((n - 1) / 2),
        E[y t] = E[std t] + r / n,    E[y^2] = 1 + (1 + v) / (n - 3),
    v the variance of the shared noise over that of a line: the second moment is infinite for n <= 3, where the floor
    alone bounds steps. Source: Dang et al. 2025, arXiv 2506.09034, there without a floor.

    Raises:
        ValueError: as Standardised.
    """

    def require_fit(self, n: int, stencil: Stencil) -> None:
        """Raise ValueError if there is one line, or the stencil is not the forward one."""
        require_several("LossSpread", n, "divides by the spread of a step's losses")
        if not isinstance(stencil, ForwardStencil):
            raise ValueError(
                f"LossSpread compares f(x + e u) with f(x), but the stencil is {stencil!r}: give a forward one"
            )

    def __call__(self, scalars: Scalars) -> Tensor:
        """Return the differences to the loss of the base point, over the spread."""
        moved, base = scalars.losses.unbind(-1)
        variance = moved.var(-1, correction=0, keepdim=True)
        return self.divided(moved - base, variance, base[..., :1].abs())

    def scores(self, n: int, slopes: Slopes) -> Scores:
        """Return the moments; infinite where they are."""
        if n <= 3:
            return Scores(self._mean(n), math.inf, math.inf, math.inf)
        v, inverse = (slopes.shared / slopes.scale) ** 2, n / (n - 3)  # E[1 / std^2]
        square = 1 + 1 / (n - 3)
        fourth = 3 * inverse / n**2 + 6 / n + 3 * (n - 1) ** 2 / (n * (n + 1)) + v * square
        total = n * n * ((n - 1) / n + 2 / n + 3 * inverse / n**2 + v * inverse / n)
        return Scores(self._mean(n), square + v * inverse, fourth, (total - n * fourth) / (n * (n - 1)))

    def _mean(self, n: int) -> float:
        if n == 2:
            return math.inf
        inverse = math.sqrt(n / 2) * math.exp(math.lgamma(n / 2 - 1) - math.lgamma((n - 1) / 2))
        return math.sqrt((n - 1) / n) * mean_length(n - 1) + inverse / n


@dataclass(frozen=True)
class PairSpread(Standardised):
    """y_i = (l_i+ - l_i-) / (2 std l), the population's standard deviation of all 2 n losses of antithetic pairs.

    The standardised fitness of EGGROLL: a group's mean drops out of a pair. For a linear f without noise y = s / rms s
    is a uniform point on the sphere of radius sqrt(n), so that E[y t] = sqrt(2 / n) Gamma((n + 1) / 2) / Gamma(n / 2)
    and E[y^2] = 1; with noise to leading order in 1/n. Nothing is divided by epsilon. Source: Sarkar et al. 2025, arXiv
    2511.16652, whose gradient is sqrt(n) times this one.

    Raises:
        ValueError: as Standardised.
    """

    def require_fit(self, n: int, stencil: Stencil) -> None:
        """Raise ValueError if the stencil is not the central one."""
        if not isinstance(stencil, CentralStencil):
            raise ValueError(f"PairSpread needs antithetic pairs, but the stencil is {stencil!r}: give a central one")

    def __call__(self, scalars: Scalars) -> Tensor:
        """Return half the differences of the pairs, over the spread."""
        every = scalars.losses.flatten(-2)
        up, down = scalars.losses.unbind(-1)
        variance = every.var(-1, correction=0, keepdim=True)
        return self.divided((up - down) / 2, variance, every.abs().amax(-1, keepdim=True))

    def scores(self, n: int, slopes: Slopes) -> Scores:
        """Those of a uniform point on a sphere, shorter by what noise adds to the spread."""
        kept = slopes.scale / math.hypot(slopes.scale, slopes.even)
        fourth = 3 * n / (n + 2)
        cross = (n - fourth) / (n - 1) if n > 1 else 1.0
        coverage = "leading order in 1/n" if slopes.even else "exact"
        return Scores(kept * mean_length(n), kept**2, kept**2 * fourth, kept**2 * cross, coverage)


def mean_length(n: int) -> float:
    """Return E|t| / sqrt(n) for t ~ N(0, I_n): sqrt(2 / n) Gamma((n + 1) / 2) / Gamma(n / 2)."""
    return math.sqrt(2 / n) * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2))
