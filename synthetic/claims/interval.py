"""The shrinking interval of r: under the kernel of [-1, 1], and rescaled with the interval."""

import math
from collections.abc import Iterator

import zobench
from synthetic import problems
from synthetic.claims.check import check
from zobench import Gaussian, KernelStencil, LineEstimator, derive, kernels
from zobench.run.records import Row

DIM = 8
EPSILON = 0.5
SCALES = (1.0, 0.9, math.sqrt(25 / 42), 0.7, 0.5, 0.25, 0.1)
CONSTANT = 4.0  # of the kernel 15 r (5 - 7 r^2) in a port of KerZOO's code


def rows(samples: int, seed: int) -> Iterator[Row]:
    """Measure the mean step and the bias that is left, as a share of MeZO's, on a quadratic and a cubic."""
    quadratic, cubic = (problems.make(name, DIM, seed=seed) for name in ("quadratic", "cubic"))
    x, y = (problems.start(problem, seed) for problem in (quadratic, cubic))
    gradient, along = quadratic.gradient(x), EPSILON**2 / 2 * cubic.grad_laplacian(y)
    kernel = kernels.legendre(3, CONSTANT)
    for scale in SCALES:
        for method, change in (("unscaled", kernels.shrunk), ("rescaled", kernels.rescaled)):
            shrunk = change(kernel, scale)
            estimator, about = LineEstimator(Gaussian(), KernelStencil(shrunk), EPSILON), {"scale": scale, "dim": DIM}
            step, third = shrunk.moment(1), shrunk.moment(3)
            key = derive("claims", "interval", seed, method, scale.hex())
            steps = zobench.estimate(estimator, quadratic, x, key, samples) @ gradient / gradient.square().sum()
            error = float(steps.std()) / math.sqrt(samples)
            quantities = {**about, "problem": "quadratic", "samples": samples}
            yield check("interval", "mean step", method, step, (float(steps.mean()), error), **quantities)
            few = max(1000, samples // 10)
            found = zobench.controlled_moments(estimator, cubic, cubic.gradient(y), y, key, few)
            bias = found.mean - (step - 1) * cubic.gradient(y)
            unit = along / along.square().sum() / step
            left, error = float(bias @ unit), found.error_along(unit)
            quantities = {**about, "problem": "cubic", "samples": few, "epsilon": EPSILON}
            yield check("interval", "bias against MeZO's", method, third / step, (left, error), **quantities)
            second = shrunk.second_moment() / step**2
            yield check("interval", "second moment of a unit step", method, second, (second, 0.0), **about)
