"""What kernels cost: the second moment of an estimate, the variance that loss noise adds, and steps that go uphill."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

import zobench
from synthetic import problems
from synthetic.claims.check import check
from zobench import Gaussian, KernelStencil, LineEstimator, derive, kernels
from zobench.kernels import PolynomialKernel
from zobench.layout import CPU
from zobench.run.records import Row

DIM = 16
KERNELS: dict[str, PolynomialKernel] = {
    "3r": kernels.legendre(1),
    "order 3": kernels.legendre(3),
    "order 5": kernels.legendre(5),
    "order 5 as printed": kernels.kerzoo5_as_printed(),
}


@dataclass(frozen=True)
class Flat:
    """f = 0 in `dim` variables: estimates are noise alone."""

    dim: int = DIM

    def __call__(self, x: Tensor) -> Tensor:
        """Return 0."""
        return x[..., 0] * 0.0


def rows(samples: int, seed: int) -> Iterator[Row]:
    """Measure every kernel on a quadratic, where central differences are exact at every epsilon, and on noise."""
    problem = problems.make("quadratic", DIM, seed=seed)
    x = problems.start(problem, seed)
    gradient = problem.gradient(x)
    for name, kernel in KERNELS.items():
        estimator = LineEstimator(Gaussian(), KernelStencil(kernel), 1.0)
        drawn = zobench.estimate(estimator, problem, x, derive("claims", "cost", seed, name), samples)
        slope, noise = kernel.second_moment(), kernel.second_moment(1.0) - kernel.second_moment()
        square = gradient.square().sum()
        steps = drawn @ gradient / square
        moments = drawn.square().sum(1) / ((DIM + 2) * square)
        about = {"problem": "quadratic", "dim": DIM, "samples": samples}
        yield check("cost", "mean step", name, kernel.moment(1), _mean(steps), **about)
        yield check("cost", "second moment", name, slope, _mean(moments), **about)
        uphill = _uphill(kernel)
        yield check("cost", "uphill share", name, uphill, _mean((steps < 0).double()), **about)
        noisy = zobench.estimate(estimator, Flat(), torch.zeros_like(x), derive("claims", "noise", seed), samples, 1.0)
        variances = noisy.square().sum(1) / (DIM / 2)
        yield check("cost", "noise variance", name, noise, _mean(variances), **{**about, "problem": "none"})


def _mean(values: Tensor) -> tuple[float, float]:
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def _uphill(kernel: PolynomialKernel) -> float:
    """P(r K(r) < 0), on a grid of midpoints."""
    r = (torch.arange(200_000, dtype=torch.float64, device=CPU) + 0.5) / 200_000
    return float((kernel(r) < 0).double().mean())
