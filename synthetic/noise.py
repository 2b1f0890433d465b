"""Models of noise beside zobench.noise.Additive: multiplicative, minibatch, and rounding to few bits."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zobench import theory
from zobench.layout import CPU
from zobench.naming import require_known
from zobench.noise import Additive, Evaluate, Function, NoiseModel, errors
from zobench.numbers import count, store
from zobench.plan import SLOPE, Plan
from zobench.problem import demand
from zobench.random import streams
from zobench.random.keys import derive

__all__ = ["Additive", "MinibatchNoise", "Multiplicative", "Rounding", "statistics"]

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
SCOPES = ("plan", "direction", "evaluation")
LOSSES_AT_ONCE = 1 << 20


@dataclass(frozen=True)
class Multiplicative(NoiseModel):
    """f(x) (1 + scale xi), xi ~ N(0, 1) independent at each evaluation.

    Raises:
        ValueError: scale is negative or not finite.
    """

    scale: float

    def __post_init__(self) -> None:
        if not 0 <= self.scale < math.inf:
            raise ValueError(f"scale is {self.scale!r}: give a relative standard deviation, 0 or more")

    def losses(self, evaluate: Evaluate, f: Function, plan: Plan) -> Tensor:
        """Return the losses with independent relative errors."""
        losses = evaluate(f, plan)
        return losses * (1.0 + self.scale * errors(plan).to(losses))

    def deviation(self, f: Any, x: Tensor) -> float:
        """Return scale |f(x)|."""
        return self.scale * abs(float(f(x)))


@dataclass(frozen=True)
class Rounding(NoiseModel):
    """f(x) in float64, rounded to "bfloat16", "float16" or "float32"; with `inputs` the point is rounded before.

    No randomness: equal points have equal values. `deviation` takes the error for uniform on half an ulp either side,
    which holds where losses differ by many ulps. Errors of one plan are not independent: the base point's is fixed, and
    where f is linear those at both ends of a central difference mirror each other. With y = 2 f(x) / ulp mod 1 their
    difference has variance (1/6 + y^2 - y + 1/6) ulp^2: between half and twice the 1/6 of independent ones, which is
    its mean over y.

    Raises:
        UnknownNameError: no such dtype.
    """

    dtype: str
    inputs: bool = False

    def __post_init__(self) -> None:
        require_known(self.dtype, DTYPES, "dtype")

    def __call__(self, values: Tensor) -> Tensor:
        """Return the values, rounded to nearest, as float64."""
        return values.to(DTYPES[self.dtype]).double()

    def rounded(self, f: Function) -> Function:
        """Return the function that is seen."""
        return lambda points: self(f(self(points) if self.inputs else points))

    def losses(self, evaluate: Evaluate, f: Function, plan: Plan) -> Tensor:
        """Return the rounded losses."""
        return evaluate(self.rounded(f), plan)

    def ulp(self, values: Tensor) -> Tensor:
        """Return the spacing of the dtype at the values; infinite where they overflow."""
        info = torch.finfo(DTYPES[self.dtype])
        exponents = torch.frexp(values.double().abs().clamp(min=info.smallest_normal)).exponent - 1
        spacing = torch.ldexp(torch.full_like(exponents, info.eps, dtype=torch.float64), exponents)
        return spacing.where(values.abs() <= info.max, math.inf)

    def deviation(self, f: Any, x: Tensor) -> float:
        """Return ulp(f(x)) / sqrt(12); with `inputs` sqrt(ulp(f)^2 + sum_i (f_i ulp(x_i))^2) / sqrt(12), which needs
        .gradient.
        """
        squares = self.ulp(f(x)).square()
        if self.inputs:
            squares = squares + (demand(f, "gradient", "rounding of the inputs")(x) * self.ulp(x)).square().sum()
        return math.sqrt(float(squares) / 12)


@dataclass(frozen=True)
class MinibatchNoise(NoiseModel):
    """The mean loss of `size` examples, drawn with replacement, in place of all; for problems with .example_losses.

    `per` says what shares a minibatch: a "plan" (the usual step: both ends of every difference), each "direction" (both
    ends of its own), or nothing, one for each "evaluation", whose noise is then divided by epsilon. Cost: all examples
    at each evaluation, and one more evaluation for each minibatch where a plan has several.

    Raises:
        ValueError: size < 1.
        UnknownNameError: no such scope.
    """

    size: int
    per: str = "plan"

    def __post_init__(self) -> None:
        require_known(self.per, SCOPES, "scope of a minibatch")
        advice = "give the number of examples in a minibatch, 1 or more"
        store(self, size=count("size", self.size, advice))

    def losses(self, evaluate: Evaluate, f: Function, plan: Plan) -> Tensor:
        """Return the losses on minibatches keyed by the plan.

        Raises:
            MissingDerivativeError: f has no example_losses.
        """
        result = torch.empty(plan.offsets.shape, dtype=torch.float64, device=CPU)
        for number, nodes in enumerate(self._groups(plan)):
            seen = self.drawn(f, derive(plan.key, "minibatch", number), plan.batch)
            values = evaluate(seen, plan if nodes.all() else replace(plan, offsets=plan.offsets.where(nodes, 0.0)))
            result = torch.where(nodes, values, result)
        return result

    def _groups(self, plan: Plan) -> list[Tensor]:
        """Which of the (n, m) nodes share a minibatch; the base point, evaluated once, has one, and each slope."""
        n, m = plan.offsets.shape[-2:]
        nodes = torch.arange(n * m, dtype=torch.int64, device=CPU).reshape(n, m)
        if self.per == "plan":
            return [nodes >= 0]
        if self.per == "direction" or plan.asks == SLOPE:
            return [nodes // m == i for i in range(n)]
        base = torch.tensor(plan.is_base, dtype=torch.bool, device=CPU)
        singles = [nodes == i for i in nodes[~base].tolist()]
        return [*singles, base] if base.any() else singles

    def drawn(self, f: Any, key: int, batch: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        """Return points (*batch, d) -> mean loss of a minibatch of its own for each element of the batch."""
        example_losses = demand(f, "example_losses", "minibatch noise")
        indices = streams.integers(key, (*batch, self.size), f.examples)
        rows = max(1, LOSSES_AT_ONCE // f.examples)

        def seen(points: Tensor) -> Tensor:
            flat, own = points.reshape(-1, points.shape[-1]), indices.reshape(-1, self.size)
            slices = zip(flat.split(rows), own.split(rows), strict=True)
            means = [example_losses(some).gather(-1, chosen).mean(-1) for some, chosen in slices]
            return torch.cat(means).reshape(points.shape[:-1])

        return seen

    def deviation(self, f: Any, x: Tensor) -> float:
        """Return the standard deviation of the loss of one example over sqrt(size)."""
        losses = demand(f, "example_losses", "minibatch noise")(x)
        return float(losses.std(correction=0)) / math.sqrt(self.size)


def statistics(noise: NoiseModel, f: Any, x: Tensor) -> theory.Noise:
    """Return what theory needs of a model of noise at x (d,): a covariance of gradients for a minibatch that both ends
    of a difference share, else the deviation of one evaluation.

    Exact for Additive; for the others the noise at x stands for that at the plan's points.

    Raises:
        MissingDerivativeError: f lacks what the model needs.
    """
    if isinstance(noise, MinibatchNoise) and noise.per != "evaluation":
        covariance = demand(f, "gradient_covariance", "minibatch noise")(x) / noise.size
        return theory.Noise(minibatch=covariance, shared=noise.per == "plan")
    return theory.Noise(noise.deviation(f, x))
