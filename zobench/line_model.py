"""A model of losses along lines: how large truncation and noise are at every reach, from a handful of evaluations.

Central differences c(a) = [f(x + a u) - f(x - a u)] / (2 a) along L lines at reaches a_1 ... a_m are
    c(a) = D_1 + t(a) + noise,   Var noise = (s^2 + rounding) / (2 a^2),
with t the truncation error of a random function: if f is a Gaussian process along the line, of length l (covariance
proportional to exp(-r^2 / 2 l^2)), its odd part gives, with a and b in units of l,
    E[t(a) t(b)] = A { exp(-(a^2 + b^2) / 2) [sinh(a b) / (a b) - 1] + (1 - exp(-a^2 / 2)) (1 - exp(-b^2 / 2)) },
that of a^2 D_3 / 6 for small reaches, and bounded for large ones. D_1 is free: only contrasts between reaches count.
The posterior over (l, s, A) on a grid, lines pooled, says what to expect at any reach. It needs neither a spacing that
resolves the noise nor a scale on which f is a cubic, as difference tables do (More and Wild 2011, "Estimating
computational noise"; 2012, "Estimating derivatives of noisy simulations"). The rounding of values is read off them: the
shortest binary significand that holds them all.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.stencil import Stencil

SHORTEST, LONGEST = 6.0, 50.0  # lengths, in units of the smallest and of the largest reach
FAINTEST, STRONGEST = 1e-14, 1e2  # truncation at the largest reach, in units of the spread of slopes
IMPLAUSIBLE = 9.0  # log-likelihoods this far below the best bound the refined grid
COARSE, FINE = (8, 20, 24), (8, 14, 14)
SERIES_BELOW = 0.3
DOUBLE_BITS = 53
TINY = 1e-300


@dataclass(frozen=True, eq=False)
class LineModel:
    """A posterior over (length l, noise s, amplitude A) of losses along lines, as P points (P,) with weights; and what
    was seen: slopes c(a) = D_1 + t(a) + noise, Var noise = (s^2 + rounding) / (2 a^2), t Gaussian with amplitude A.

    `reaches` (m,) ascend; `slopes` (L, m) are the central differences; `rounding` (m,) is the variance that rounding
    gives to one value at each reach.
    """

    reaches: Tensor
    slopes: Tensor
    rounding: Tensor
    weights: Tensor
    lengths: Tensor
    noises: Tensor
    amplitudes: Tensor

    @classmethod
    def fit(cls, reaches: Tensor, values: Tensor, loudest: float = math.inf) -> "LineModel":
        """Return the posterior from the values (L, m, 2) at + and - each of m >= 2 ascending reaches; `loudest` bounds
        the noise s from above, as far as is known from elsewhere.

        Raises:
            ValueError: fewer than two reaches, or a value is not finite.
        """
        if len(reaches) < 2 or not bool(values.isfinite().all()):
            raise ValueError(
                f"{len(reaches)} reaches and values {values.tolist()}: give two or more, all values finite"
            )
        slopes = (values[..., 0] - values[..., 1]) / (2 * reaches)
        seen = _Seen(reaches, slopes, rounding_variance(values), loudest)
        axes = [log_grid(*bounds, size) for bounds, size in zip(seen.bounds(), COARSE, strict=True)]
        likelihood = seen.likelihood(*axes)
        axes = [_zoomed(axis, likelihood, i, size) for i, (axis, size) in enumerate(zip(axes, FINE, strict=True))]
        refined = seen.likelihood(*axes)
        weights = (refined - refined.max()).exp()
        kept = (weights > 1e-5).nonzero().T
        lengths, noises, strengths = (axis[index] for axis, index in zip(axes, kept, strict=True))
        chosen = weights[tuple(kept)]
        amplitudes = strengths * seen.unit / covariance(reaches[-1] / lengths, reaches[-1] / lengths)
        return cls(reaches, slopes, seen.rounding, chosen / chosen.sum(), lengths, noises, amplitudes)

    def truncation(self, stencil: Stencil, epsilons: Tensor) -> Tensor:
        """Return the posterior mean of E T^2, T = sum_k w_k r_k t(epsilon |r_k|) of a symmetric stencil, (E,): without
        noise, the coefficient of one line is S D_1 + T with S = sum_k w_k r_k.
        """
        lengths, inverse = torch.unique(self.lengths, return_inverse=True)
        amplitudes = torch.zeros_like(lengths).index_add_(0, inverse, self.weights * self.amplitudes)
        rule = stencil.quadrature(12)
        reach, mass = rule.nodes.abs(), rule.weights * rule.nodes
        scaled = (epsilons[:, None, None] * reach)[None] / lengths[:, None, None, None]  # (l, E, Q, k)
        pairs = covariance(scaled[..., :, None], scaled[..., None, :])
        return torch.einsum("l,q,qi,qj,leqij->e", amplitudes, rule.probabilities, mass, mass, pairs)

    def noise_variance(self, stencil: Stencil, epsilons: Tensor) -> Tensor:
        """Return the posterior mean of the variance that noise and rounding give the coefficient of one line, (E,)."""
        rule = stencil.quadrature(0)
        weight = rule.probabilities[:, None] * rule.weights.square()
        noise = self.noise_square + self.rounding_at(epsilons[:, None, None] * rule.nodes.abs())
        return (weight * noise).sum((1, 2)) / epsilons.square()

    def excess(self, stencil: Stencil, epsilons: Tensor) -> Tensor:
        """Return what epsilon is chosen by: truncation / 2 + noise, (E,). S D_1 of a random S, as a kernel's, has a
        spread of its own, which epsilon does not change.

        Half, because a posterior mean from a handful of lines is above the typical truncation by about that factor.
        """
        return self.truncation(stencil, epsilons) / 2 + self.noise_variance(stencil, epsilons)

    def rounding_at(self, reach: Tensor) -> Tensor:
        """Return the variance of the rounding of one value, interpolated between the reaches seen."""
        return torch.from_numpy(np.interp(reach.log().numpy(), self.reaches.log().numpy(), self.rounding.numpy()))

    @property
    def noise_square(self) -> float:
        """The posterior mean of s^2, the variance of the noise of one evaluation beside its rounding."""
        return float(self.weights @ self.noises.square())

    @property
    def slope_square(self) -> float:
        """The mean of D_1^2 over the lines, from the median of the slopes of each line over reaches."""
        return float(self.slopes.median(1).values.square().mean())

    @property
    def third_square(self) -> float:
        """The posterior mean of E[D_3^2]: at short reaches t is a^2 D_3 / 6 and E t^2 is 5 A a^4 / (12 l^4)."""
        return float(self.weights @ (15 * self.amplitudes / self.lengths**4))


class _Seen:
    """Slopes with what is known of their errors, reduced to contrasts between reaches."""

    def __init__(self, reaches: Tensor, slopes: Tensor, rounding: Tensor, loudest: float) -> None:
        self.reaches, self.slopes, self.rounding, self.loudest = reaches, slopes, rounding, loudest
        m = len(reaches)
        columns = torch.cat(
            (torch.ones(m, 1, dtype=torch.float64, device=CPU), torch.eye(m, dtype=torch.float64, device=CPU)[:, 1:]), 1
        )
        self.contrasts = torch.linalg.qr(columns).Q[:, 1:]  # orthogonal to constants
        self.spread = (slopes - slopes.mean(1, keepdim=True)).square().mean(0).sqrt()
        self.unit = float(self.spread.max()) ** 2 or TINY

    def bounds(self) -> list[tuple[float, float]]:
        """Where lengths, noises and strengths are sought."""
        largest = max(min(2 * float((self.spread * self.reaches).max()), self.loudest), TINY)
        least = max(0.1 * math.sqrt(float(self.rounding.min())), largest * 1e-12, TINY)
        lengths = (SHORTEST * float(self.reaches[0]), LONGEST * float(self.reaches[-1]))
        return [lengths, (least, max(largest, 10 * least)), (FAINTEST, STRONGEST)]

    def likelihood(self, lengths: Tensor, noises: Tensor, strengths: Tensor) -> Tensor:
        """Return the log-likelihood on the product grid, (l, s, x): amplitudes are x unit / t(largest reach)."""
        b, a = self.contrasts, self.reaches
        noise, rounding = (b.T @ torch.diag(v / (2 * a * a)) @ b for v in (torch.ones_like(a), self.rounding))
        scaled = a / lengths[:, None]
        shape = covariance(scaled[:, :, None], scaled[:, None, :])
        amplitudes = strengths * self.unit / shape[:, -1, -1][:, None]
        factor = torch.linalg.cholesky(noises[:, None, None].square() * noise + rounding)
        white = torch.linalg.inv(factor)
        values, vectors = torch.linalg.eigh(white @ (b.T @ shape @ b)[:, None] @ white.mT)
        along = ((self.slopes @ b @ white.mT)[None] @ vectors).square().sum(-2)[:, :, None]
        variance = 1 + amplitudes[:, None, :, None] * values.clamp(min=0)[:, :, None]
        lines = len(self.slopes)
        constant = lines * 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        fit = (lines * variance.log() + along / variance).sum(-1)
        total: Tensor = -0.5 * (constant[None, :, None] + fit)
        return total


def covariance(a: Tensor, b: Tensor) -> Tensor:
    """Return E[t(a) t(b)] / A, a and b in units of the length, broadcast: exp(-(a^2 + b^2) / 2) [sinh(a b) / (a b) - 1]
    + (1 - exp(-a^2 / 2)) (1 - exp(-b^2 / 2)); a series in a b where that cancels.
    """
    product, half = a * b, (a * a + b * b) / 2
    square = product.square()
    series = (-half).exp() * square * (1 / 6 + square * (1 / 120 + square * (1 / 5040 + square / 362880)))
    large = product.clamp(min=SERIES_BELOW)
    exact = ((large - half).exp() - (-large - half).exp()) / (2 * large) - (-half).exp()
    both = torch.expm1(-a * a / 2) * torch.expm1(-b * b / 2)
    total: Tensor = both + torch.where(product < SERIES_BELOW, series, exact)
    return total


def significand(values: Tensor) -> int:
    """Return the least number of bits p <= 53 such that every finite value is a p-bit number: 24 for float32, 8 for
    bfloat16, fewer by chance.
    """
    plain = values[values.isfinite() & (values != 0)].numpy()
    if not len(plain):
        return DOUBLE_BITS
    whole = np.abs(np.frexp(plain)[0] * 2.0**DOUBLE_BITS).astype(np.int64)
    return DOUBLE_BITS - int(np.log2(whole & -whole).min())


def rounding_variance(values: Tensor) -> Tensor:
    """Return the variance of rounding at each reach, (m,), of values (L, m, 2): ulp^2 / 12, averaged over lines and
    signs.
    """
    exponent = torch.frexp(values.abs()).exponent
    ulp = torch.ldexp(torch.ones_like(values), exponent - significand(values))
    return ulp.square().mean((0, 2)) / 12


def log_grid(low: float, high: float, size: int) -> Tensor:
    """Return `size` points from low to high, float64 (size,): low (high / low)^(i / (size - 1))."""
    return torch.logspace(math.log10(low), math.log10(high), size, dtype=torch.float64, device=CPU)


def _zoomed(axis: Tensor, likelihood: Tensor, dim: int, size: int) -> Tensor:
    """A finer axis over what is plausible on this one, and one point beyond."""
    plausible = (likelihood > likelihood.max() - IMPLAUSIBLE).movedim(dim, 0).flatten(1).any(1).nonzero()[:, 0]
    first, last = max(int(plausible[0]) - 1, 0), min(int(plausible[-1]) + 1, len(axis) - 1)
    return log_grid(float(axis[first]), float(axis[last]), size)
