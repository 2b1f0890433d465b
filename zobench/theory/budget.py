"""Choices that the predictions make: the best epsilon, and estimators side by side at equal cost."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from scipy.optimize import minimize_scalar
from torch import Tensor

from zobench.estimator import LineEstimator
from zobench.evaluations import evaluations_a_step
from zobench.numbers import count
from zobench.problem import Problem
from zobench.theory.descent import Step
from zobench.theory.error import error, series, spread
from zobench.theory.lines import Lines
from zobench.theory.noise import Noise
from zobench.theory.series import Series, displacement

Goal = Literal["mse", "descent"]
GOALS: tuple[Goal, ...] = ("mse", "descent")
LEAST, MOST = 1e-8, 1e2


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is predicted of one estimator: |E g - grad f|, E|g - E g|^2, their sum mse = bias^2 + covariance_trace, and
    of a step the best rate and the decrease f(x) - E f(x - best_lr g) there.
    """

    estimator: LineEstimator
    evaluations: int
    bias: float
    covariance_trace: float
    mse: float
    best_lr: float
    decrease: float


def best_epsilon(
    estimator: LineEstimator, problem: Problem, x: Tensor, noise: float | Noise, goal: Goal = "mse"
) -> float:
    """Return the epsilon in [1e-8, 1e2] that minimises the predicted mean squared error E|g - grad f|^2 at this noise,
    or with goal="descent" that gains most in one SGD step at its own best rate, (grad f . E g)^2 / (2 E[g^T H g]).

    Where `coverage` is not exact it is trustworthy only if the result is small enough for the terms that are left out.

    Raises:
        ValueError: noise is not positive: in exact arithmetic the error then falls, or stays, as epsilon goes to 0. Or
            the estimator has no epsilon.
    """
    return _best_epsilon(series(estimator, problem, x), estimator, noise, goal)


def _best_epsilon(one: Series, estimator: LineEstimator, noise: float | Noise, goal: Goal) -> float:
    if not Noise.of(noise).evaluation > 0:
        raise ValueError(f"noise is {noise!r}: without noise the smallest epsilon is the best, in exact arithmetic")
    if estimator.perturbed_by is None:
        raise ValueError(f"{estimator!r} has no epsilon to choose: its error does not depend on one")
    if goal not in GOALS:
        raise ValueError(f"goal is {goal!r}: give one of {', '.join(GOALS)}")

    def loss(log_epsilon: float) -> float:
        at = replace(estimator, epsilon=math.exp(log_epsilon))
        if goal == "descent":
            gain = Step.along(one, at, noise).best_decrease
            return -math.log(gain) if 0 < gain < math.inf else math.inf
        value = error(one, at, noise)
        return math.log(value) if value > 0 else math.inf  # a truncated series may fall below 0 far outside its range

    bounds = (math.log(LEAST), math.log(MOST))
    grid = [bounds[0] + (bounds[1] - bounds[0]) * i / 92 for i in range(93)]
    start = min(grid, key=loss)
    around = (max(start - 0.5, bounds[0]), min(start + 0.5, bounds[1]))
    found = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-6})
    return float(math.exp(found.x))


def spend(estimator: LineEstimator, evaluations: int, dim: int) -> LineEstimator:
    """Return the estimator with as many directions as the evaluations pay, n = 1 + floor((evaluations - c_1) / (c_2 -
    c_1)) with c_n the cost of n of them; orthogonal ones are at most d.

    Raises:
        ValueError: not even one direction can be paid, or more directions cost no more.
    """
    evaluations = count("evaluations", evaluations, least=None)
    one, two = (evaluations_a_step(replace(estimator, n=n)) for n in (1, 2))
    if two <= one:
        raise ValueError(
            f"{estimator!r} costs {one} evaluations with one direction and {two} with two: no n spends a budget"
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
    be positive). `lines` of the same problem and point shares the derivatives between calls.

    Raises:
        ValueError: one direction of an estimator costs more than the evaluations.
        MissingDerivativeError: the problem lacks what a prediction needs.
    """
    lines = lines or Lines(problem, x)
    return [_forecast(estimator, lines, evaluations, noise, best) for estimator in estimators]


def _forecast(
    estimator: LineEstimator, lines: Lines, evaluations: int, noise: float | Noise, best: Goal | None
) -> Forecast:
    one = series(estimator, lines.problem, lines.x, lines)
    paid = spend(estimator, evaluations, lines.dim)
    if best is not None and paid.perturbed_by is not None:
        paid = replace(paid, epsilon=_best_epsilon(one, paid, noise, best))
    step = Step.along(one, paid, noise)
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
