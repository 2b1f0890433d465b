"""The epsilon at which a prediction is best, as far as its series can be trusted."""

import math
import warnings
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from torch import Tensor

from zobench.estimator import LineEstimator
from zobench.problem import MissingDerivativeError, Problem
from zobench.theory import laws
from zobench.theory.descent import curvatures
from zobench.theory.error import errors, series
from zobench.theory.noise import Noise
from zobench.theory.series import Powers, Series, at, beyond, displacement, powers

Goal = Literal["mse", "descent"]
GOALS: tuple[Goal, ...] = ("mse", "descent")
LEAST, MOST = 1e-8, 1e2
POINTS = 4601  # 0.5 % apart: two minima that are closer are equally good
SHALLOW = 1e-12  # dips of the logarithm that rounding makes
TRUSTED = 0.1  # of the prediction may be left out of it
Values = NDArray[np.float64]
Costs = Callable[[Values], Values]


def best_epsilon(
    estimator: LineEstimator, problem: Problem, x: Tensor, noise: float | Noise, goal: Goal = "mse"
) -> float:
    """Return the epsilon in [1e-8, 1e2] that minimises the predicted mean squared error E|g - grad f|^2 at this noise,
    or with goal="descent" that gains most in one SGD step at its own best rate, (grad f . E g)^2 / (2 E[g^T H g]),
    among those at which that gain is positive and finite. Every local minimum is compared.

    Where `coverage` is not exact, only epsilons are considered up to which the terms that are left out, judged by those
    that are kept, are at most a tenth of the prediction. Where it is best at the largest of them, that one is returned
    with a RuntimeWarning: the true best is then larger. Cost: as for `second_moment`, at any number of epsilons.

    Args:
        estimator: g, with its n; its epsilon does not matter.
        problem: f.
        x: one point, (d,).
        noise: the standard deviation of independent noise on each evaluation, in the unit of f, or a theory.Noise.
        goal: "mse" or "descent".

    Raises:
        ValueError: noise is not positive: in exact arithmetic the error then falls, or stays, as epsilon goes to 0. Or
            the estimator has no epsilon. Or no epsilon gains: f is linear, concave or stationary at x.
        MissingDerivativeError: terms of order epsilon^2 are unknown: the goal is "descent" and the problem declares no
            ridges (for Coordinate: derivative), or it declares neither ridges nor hessian and the stencil is not
            symmetric.
    """
    best = choose(series(estimator, problem, x), estimator, noise, goal)
    if best is None:
        raise ValueError(
            f"no epsilon from {LEAST:g} to {MOST:g} gains: at none are grad f . E g and E[g^T H g] both positive (f is "
            'linear, concave or stationary at x): give another x, or goal="mse"'
        )
    return best


def choose(one: Series, estimator: LineEstimator, noise: float | Noise, goal: Goal) -> float | None:
    """Return the best epsilon from the series of one direction, None where none gains; errors as best_epsilon."""
    noise = Noise.of(noise)
    if not noise.evaluation > 0:
        raise ValueError(f"noise is {noise!r}: without noise the smallest epsilon is the best, in exact arithmetic")
    if estimator.perturbed_by is None:
        raise ValueError(f"{estimator!r} has no epsilon to choose: its error does not depend on one")
    if goal not in GOALS:
        raise ValueError(f"goal is {goal!r}: give one of {', '.join(GOALS)}")
    _require_second_order(one, goal)
    displacement(estimator, one.lines.dim)
    whole, left_out, costs = (_descent if goal == "descent" else _error)(one, estimator, noise)
    unit = estimator.law.unit(one.lines.dim)
    logs = np.linspace(math.log(LEAST), math.log(MOST), POINTS)
    e = np.exp(logs) * unit
    doubtful = left_out.any() & (at(left_out, e) > TRUSTED * at(whole, e))
    logs = logs[: max(int(doubtful.argmax()), 2)] if doubtful.any() else logs
    best = _least(lambda log: costs(np.exp(log) * unit), logs)
    if best is not None and len(logs) < POINTS and best > logs[-2]:
        warnings.warn(
            f"the series of {type(one.lines.problem).__name__} is truncated: up to epsilon {math.exp(best):.3g} its "
            f"{'gain grows' if goal == 'descent' else 'error falls'}, and beyond it is not to be trusted; the best "
            "epsilon is larger: sample it (zobench.moments), or declare ridges",
            RuntimeWarning,
            stacklevel=3,
        )
    return None if best is None else min(max(math.exp(best), LEAST), MOST)


def _require_second_order(one: Series, goal: Goal) -> None:
    name = type(one.lines.problem).__name__
    if laws.products_known(one.law, one.lines):
        return
    if goal == "descent":
        raise MissingDerivativeError(
            f'goal="descent" needs the terms of order epsilon^2 in E[g^T H g], and they .ridges of {name}, which does '
            "not declare it"
        )
    if not one.second_order:
        raise MissingDerivativeError(
            f"the best epsilon of {one.stencil!r} needs E[D_2^2], which needs .hessian or .ridges of {name}, which "
            "declares neither"
        )


def _error(one: Series, estimator: LineEstimator, noise: Noise) -> tuple[Powers, Powers, Costs]:
    """The mean squared error, about what it lacks, and its logarithm."""
    whole = errors(one, estimator, noise)
    return whole, one.left_out / estimator.n, lambda e: _log(at(whole, e))


def _descent(one: Series, estimator: LineEstimator, noise: Noise) -> tuple[Powers, Powers, Costs]:
    """E[g^T H g], about what it lacks, and minus the logarithm of the gain."""
    whole, slopes = curvatures(one, estimator, noise), one.slopes
    left_out = powers(()) if one.exact else np.abs(beyond(one.curvatures, 4)) / estimator.n
    return whole, left_out, lambda e: _log(at(whole, e)) - 2 * _log(at(slopes, e), -math.inf)


def _log(values: Values, otherwise: float = math.inf) -> Values:
    """The logarithm of positive values, `otherwise` of others."""
    return np.log(values, out=np.full(values.shape, otherwise), where=values > 0)


def _least(cost: Costs, logs: Values) -> float | None:
    """The place of the least cost; None where it is infinite everywhere."""
    seen = cost(logs)
    if not np.isfinite(seen).any():
        return None
    padded = np.pad(seen, 1, constant_values=math.inf)
    before, after = padded[:-2], padded[2:]
    dips = (
        (seen < math.inf)
        & (seen <= before)
        & (seen <= after)
        & (np.minimum(seen + SHALLOW, math.inf) < np.maximum(before, after))
    )
    places = {int(seen.argmin()), *map(int, np.flatnonzero(dips))}
    minima = [(float(seen[i]), float(logs[i])) for i in places]
    for i in places:
        around = float(logs[max(i - 1, 0)]), float(logs[min(i + 1, len(logs) - 1)])
        near = minimize_scalar(
            lambda log: float(cost(np.asarray(log))), bounds=around, method="bounded", options={"xatol": 1e-9}
        )
        minima.append((float(near.fun), float(near.x)))
    return min(minima)[1]
