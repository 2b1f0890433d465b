"""Estimators side by side at equal cost."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from torch import Tensor

from zobench.estimator import LineEstimator
from zobench.evaluations import evaluations_a_step
from zobench.numbers import count
from zobench.problem import Problem
from zobench.theory.best_epsilon import Goal, choose
from zobench.theory.descent import DescentStep
from zobench.theory.error import error, series, spread
from zobench.theory.lines import Lines
from zobench.theory.noise import Noise
from zobench.theory.series import displacement


@dataclass(frozen=True, eq=False)
class Forecast:
    """The predictions for one estimator: bias |E g - grad f|, covariance trace E|g - E g|^2, mse = bias^2 +
    covariance_trace, and for a step the best rate and its decrease f(x) - E f(x - best_lr g), in the unit of f. The
    last two are nan where E[g^T H g] or grad f . E g is not positive. `evaluations` are those of a step.
    """

    estimator: LineEstimator
    evaluations: int
    bias: float
    covariance_trace: float
    mse: float
    best_lr: float
    decrease: float


def spend(estimator: LineEstimator, evaluations: int, dim: int) -> LineEstimator:
    """Return the estimator with as many directions as the evaluations pay, n = 1 + floor((evaluations - c_1) / (c_2 -
    c_1)) with c_n the cost of n of them; orthogonal ones are at most d.

    Args:
        estimator: g; its n is replaced.
        evaluations: loss evaluations of one step.
        dim: d, the number of variables.

    Raises:
        ValueError: one direction costs more than the evaluations, or more directions cost no more.
    """
    evaluations = count("evaluations", evaluations, least=None)
    one, two = (evaluations_a_step(replace(estimator, n=n)) for n in (1, 2))
    if two <= one:
        raise ValueError(
            f"{estimator!r} costs {one} evaluations with one direction and {two} with two: no n uses up a budget"
        )
    n = 1 + (evaluations - one) // (two - one)
    if n < 1:
        raise ValueError(f"evaluations is {evaluations}: one direction of {estimator!r} costs {one}")
    return replace(estimator, n=min(n, dim) if estimator.law.orthogonal else n)


def equal_budget(
    estimators: Iterable[LineEstimator],
    problem: Problem,
    x: Tensor,
    evaluations: int,
    noise: float | Noise = 0.0,
    best: Goal | None = None,
    lines: Lines | None = None,
) -> list[Forecast]:
    """Return the forecast of each estimator with as many directions as `evaluations` pay, n = spend(...).n, in the
    order given.

    Each keeps its epsilon; with `best` each that has one gets the epsilon that is best for it by that goal (noise must
    be positive), except where by goal "descent" none gains: it keeps its own, and best_lr and decrease are nan.

    Args:
        estimators: the estimators; their n is replaced.
        problem: f; it must declare hessian.
        x: one point, (d,).
        evaluations: loss evaluations of one step.
        noise: the standard deviation of independent noise on each evaluation, in the unit of f, or a theory.Noise.
        best: "mse" or "descent", as for `best_epsilon`; None keeps the epsilons.
        lines: the derivatives of the same problem at the same point, shared between calls.

    Raises:
        ValueError: one direction of an estimator costs more than the evaluations; or as for `descent`; or, with `best`,
            noise is not positive.
        MissingDerivativeError: the problem lacks a derivative that a prediction needs.
        TypeError: as for `bias`.
    """
    lines = lines or Lines(problem, x)
    return [_forecast(estimator, lines, evaluations, noise, best) for estimator in estimators]


def _forecast(
    estimator: LineEstimator, lines: Lines, evaluations: int, noise: float | Noise, best: Goal | None
) -> Forecast:
    one = series(estimator, lines.problem, lines.x, lines)
    paid = spend(estimator, evaluations, lines.dim)
    if best is not None and paid.perturbed_by is not None:
        paid = replace(paid, epsilon=choose(one, paid, noise, best) or paid.epsilon)
    step = DescentStep.along(one, paid, noise)
    bounded = step.curvature > 0 and step.slope > 0
    return Forecast(
        estimator=paid,
        evaluations=evaluations_a_step(paid),
        bias=float(one.bias(displacement(paid, lines.dim)).norm()),
        covariance_trace=spread(one, paid, noise),
        mse=error(one, paid, noise),
        best_lr=step.best_lr if bounded else math.nan,
        decrease=step.best_decrease if bounded else math.nan,
    )
