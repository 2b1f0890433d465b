"""Maps by the order of a step's slopes."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.maps import normal_order
from zobench.maps.coefficient_map import CoefficientMap, Scalars, require_several
from zobench.maps.entrywise import truncated
from zobench.maps.scores import Scores, Slopes
from zobench.naming import require_known
from zobench.numbers import count, real, store
from zobench.stencil import Stencil

LINEAR, LOGARITHMIC = "linear", "logarithmic"


@dataclass(frozen=True)
class Ranks(CoefficientMap):
    """y_i = w_(rank of s_i): n weights that sum to 0, the smallest for the lowest slope; equal slopes share the mean of
    theirs. Any monotone transform of the losses of a one-point or forward estimate gives the same y, to the bit.

    `utilities` "linear": w_j = 2 j / (n - 1) - 1, j = 0 ... n - 1. "logarithmic": those of natural evolution
    strategies, w = 1 - n max(0, log(n/2 + 1) - log k) / sum, k = 1 the lowest. With `top` k only the lowest k are told
    apart: w = n / |E| (2 j - n + 1) for them and n k / |E| for the others, |E| = k (k - 1) / 2 + k (n - k) pairs of
    which the better one is known. Under a linear f, with normal order statistics t_(j), E[y t] = sum_j w_j E[t_(j)] / n
    and E[y^2] = sum_j w_j^2 / n. A slope that is NaN counts as 0, infinite ones as the lowest or highest.

    Source: Wierstra et al. 2014; Tang et al. 2024, arXiv 2303.03751, whose code has n - 2 j in place of n - 1 - 2 j:
    weights that sum to k, a step towards the mean of the ranked points.

    Raises:
        UnknownNameError: no such utilities.
        ValueError: top is no positive integer.
    """

    utilities: str = LINEAR
    top: int | None = None

    def __post_init__(self) -> None:
        require_known(self.utilities, (LINEAR, LOGARITHMIC), "utilities of ranks")
        advice = "give the number of lowest losses that are told apart, from 1"
        store(self, top=None if self.top is None else count("top", self.top, advice))

    @property
    def bounded(self) -> bool:
        """True."""
        return True

    def require_fit(self, n: int, stencil: Stencil) -> None:
        """Raise ValueError if there is one line, or none that is not among the top."""
        require_several("Ranks", n, "compares the slopes of a step")
        if self.top is not None and self.top > n:
            raise ValueError(f"top is {self.top}, but a step has {n} lines: give at most {n}")

    def weights(self, n: int) -> Tensor:
        """Return w, float64 (n,), the lowest slope's first; they sum to 0."""
        ranks = torch.arange(n, dtype=torch.float64, device=CPU)
        if self.top is not None:
            pairs = self.top * (self.top - 1) / 2 + self.top * (n - self.top)
            return torch.where(ranks < self.top, 2 * ranks - (n - 1), float(self.top)) * (n / pairs)
        if self.utilities == LINEAR:
            return 2 * ranks / (n - 1) - 1
        raw = (math.log(n / 2 + 1) - (ranks + 1).log()).clamp(min=0.0)
        return 1 - n * raw / raw.sum()

    def __call__(self, scalars: Scalars) -> Tensor:
        """Return the weights by rank."""
        s = torch.nan_to_num(scalars.slopes, nan=0.0, posinf=math.inf, neginf=-math.inf)
        lower = (s[..., None, :] < s[..., :, None]).sum(-1)
        equal = (s[..., None, :] == s[..., :, None]).sum(-1)
        sums = torch.nn.functional.pad(self.weights(s.shape[-1]).to(s).cumsum(0)[:-1], (1, 1))  # all sum to 0
        return (sums[lower + equal] - sums[lower]) / equal

    def scores(self, n: int, slopes: Slopes) -> Scores:
        """Return the moments from those of normal order statistics; E[y_1 y_2 t_1 t_2] up to 64 lines."""
        w = self.weights(n).numpy()
        mean, square = float(w @ normal_order.powers(n, 1) / n), float(w @ w / n)
        fourth = float(w**2 @ normal_order.powers(n, 2) / n)
        if n > normal_order.LARGEST:
            return Scores(mean, square, fourth, mean**2, "mean exact, second moment to leading order in 1/n")
        whole = float(w @ normal_order.products(n) @ w)
        return Scores(mean, square, fourth, (whole - n * fourth) / (n * (n - 1)))


@dataclass(frozen=True)
class Winsorise(CoefficientMap):
    """y_i = max(s_(k+1), min(s_i, s_(n-k))), k = floor(share n): the k lowest and the k highest slopes are set to their
    neighbours.

    Invariant under f -> a f + b up to the factor a; up to k wild losses on either side leave no trace. Under a linear f
    E[y t] and E[y^2] are exact from normal order statistics up to 64 lines, the rest is that of a clip at the
    `share`-quantile, to leading order in 1/n.

    Raises:
        ValueError: share is not in [0, 1/2).
    """

    share: float = 0.1

    def __post_init__(self) -> None:
        advice = "give the share of slopes at either end that is cut, at least 0 and below 0.5"
        store(self, share=real("share", self.share, advice, lambda share: 0 <= share < 0.5))

    @property
    def bounded(self) -> bool:
        """True: where more are wild than are cut, the coefficients are not finite and the step is skipped."""
        return True

    def __call__(self, scalars: Scalars) -> Tensor:
        """Return the slopes, cut to those that stay."""
        s = torch.nan_to_num(scalars.slopes, nan=0.0, posinf=math.inf, neginf=-math.inf)
        cut = self.cut(s.shape[-1])
        ordered = s.sort(-1).values
        return torch.minimum(torch.maximum(s, ordered[..., cut : cut + 1]), ordered[..., -cut - 1 :][..., :1])

    def cut(self, n: int) -> int:
        """Return the number of slopes that are cut at either end."""
        return math.floor(self.share * n + 1e-9)

    def scores(self, n: int, slopes: Slopes) -> Scores | None:
        """Return the moments, scale^2 and scale times those of unit slopes; None above 64 lines or with a shift."""
        if n > normal_order.LARGEST or slopes.shift or slopes.shared:
            return None
        cut, scale = self.cut(n), slopes.scale
        kept = np.clip(np.arange(n), cut, n - 1 - cut)
        mean = float(normal_order.products(n)[kept, np.arange(n)].sum() / n)
        square = float(normal_order.powers(n, 2)[kept].sum() / n)
        if cut == 0:
            return Scores(scale, scale**2, 3 * scale**2, scale**2)
        bound = float(normal_order.powers(n, 1)[n - 1 - cut])
        _, _, m2, _, m4 = truncated(-bound, bound)
        fourth = m4 + bound**2 * (1 - m2)
        coverage = "mean exact, second moment without O(1/n) of the part along the gradient"
        return Scores(scale * mean, scale**2 * square, scale**2 * fourth, (scale * mean) ** 2, coverage)
