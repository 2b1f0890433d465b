"""zeroth_order: a method for scipy.optimize.minimize."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from scipy.optimize import OptimizeResult, OptimizeWarning
from torch import Tensor

from zobench import methods
from zobench.estimator import Estimator
from zobench.layout import CPU
from zobench.numbers import count, plain, real
from zobench.query import query
from zobench.random.keys import derive
from zobench.rule import SGD, Schedule
from zobench.space import FlatSpace

MEZO = methods.make("mezo")
CONVERGED, ALL_STEPS, NOT_FINITE, STOPPED, WORSE, ALL_EVALUATIONS = range(6)
MESSAGES = (
    "the mean loss changes by less than tol from one window to the next",
    "maxiter steps were taken",
    "a loss or a step is not finite: lower lr or epsilon",
    "the callback ended the run",
    "fun is not lower than at the start, which is returned: lower lr",
    "maxfev evaluations were made",
)


class _Spent(Exception):
    """No evaluation is left for the step."""


def zeroth_order(
    fun: Callable[..., float],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    lr: float | Schedule,
    estimator: Estimator = MEZO,
    key: int = 0,
    maxiter: int | None = None,
    maxfev: int | None = None,
    tol: float | None = None,
    window: int = 100,
    callback: Callable[..., Any] | None = None,
    disp: bool = False,
    bounds: Any = None,
    constraints: Any = (),
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
    **unknown_options: Any,
) -> OptimizeResult:
    """Minimise fun by x <- x - lr g, g the estimator's, in float64: `minimize(fun, x0, method=zeroth_order,
    options={"lr": 0.01})`.

    Step k draws under derive(key, k). `lr` is a number or a schedule step -> number. Without `tol` all `maxiter` steps
    are taken, 200 times the dimension if neither it nor `maxfev` is given; with it the end is where the mean loss of
    `window` steps differs by less than tol from that of the `window` before. The loss of a step is the mean of the
    points looked at. fun is evaluated at the start and at the last point too; nfev counts every evaluation and is at
    most `maxfev`: a step that would need more is not taken. A callback is given x, or `intermediate_result`, as SciPy
    does, and ends the run by StopIteration or by returning True (as with SciPy's trust-constr).

    The result is the last point (the one before where fun is not finite there), or the start where fun is lower there
    (status 4). `success` is that fun is not higher than at the start and that tol was reached, or that all steps or
    evaluations were spent where none was given.

    Raises:
        ValueError: bounds or constraints that bound something, an option out of range, an x0 that is not finite, or fun
            returns no number.
        TypeError: lr is missing, or the estimator is no Estimator.

    Warns:
        OptimizeWarning: an option that it does not have.
        RuntimeWarning: derivatives, which it does not use.
    """
    _require_free(bounds, constraints)
    _warn_of_unused(unknown_options, (jac, hess, hessp))
    if not isinstance(estimator, Estimator):
        raise TypeError(f"estimator is {estimator!r}: give an estimator, such as zobench.methods.make('mezo')")
    budget = math.inf if maxfev is None else count("maxfev", maxfev)
    run = _Run(fun, x0, args, estimator, SGD(lr), count("key", key, least=None), budget)
    if maxiter is not None:
        steps: float = count("maxiter", maxiter)
    else:
        steps = 200 * run.space.layout.dim if maxfev is None else math.inf
    tol = None if tol is None else real("tol", tol, "give 0 or a positive number", lambda t: t >= 0)
    result = run.result(run.go(steps, tol, count("window", window), callback), tol)
    if disp:
        print(f"{result.message}\n  fun {result.fun:g}, {result.nit} steps, {result.nfev} evaluations")
    return result


def _warn_of_unused(unknown_options: Mapping[str, Any], derivatives: tuple[Any, ...]) -> None:
    if unknown_options:
        warnings.warn(f"Unknown solver options: {', '.join(unknown_options)}", OptimizeWarning, stacklevel=4)
    if any(derivative is not None and derivative is not False for derivative in derivatives):
        warnings.warn("zeroth_order does not use derivatives (jac, hess, hessp)", RuntimeWarning, stacklevel=4)


def _require_free(bounds: Any, constraints: Any) -> None:
    """Raise ValueError unless bounds and constraints leave everything open."""
    each = constraints if isinstance(constraints, list | tuple) else (constraints,)
    if _limits(bounds) or any(map(_limits, each)):
        raise ValueError(
            "zeroth_order minimises without bounds and constraints: put a penalty into fun, or leave them out"
        )


def _limits(limits: Any) -> bool:
    if limits is None or isinstance(limits, dict):
        return bool(limits)
    ends = (limits.lb, limits.ub) if hasattr(limits, "lb") else limits
    return any(bool(np.isfinite(np.asarray(end, dtype=float)).any()) for end in ends)  # None becomes NaN


class _Run:
    def __init__(
        self,
        fun: Callable[..., float],
        x0: Any,
        args: tuple[Any, ...],
        estimator: Estimator,
        rule: SGD,
        key: int,
        budget: float,
    ) -> None:
        self.fun, self.args, self.estimator, self.rule, self.key, self.budget = fun, args, estimator, rule, key, budget
        start = np.asarray(x0, dtype=float).ravel()
        if not np.isfinite(start).all():
            raise ValueError(f"x0 is {x0!r:.200}: give finite numbers")
        self.space = FlatSpace(torch.tensor(start, dtype=torch.float64, device=CPU))
        self.memory, self.state = rule.init(self.space), estimator.init()
        self.nfev = 0
        self.start = self.before = self.space.x.clone()
        self.first = self.evaluate(self.start)

    def evaluate(self, x: Tensor) -> float:
        self.nfev += 1
        return _one_number(self.fun(x.numpy().copy(), *self.args))

    def go(self, maxiter: float, tol: float | None, window: int, callback: Callable[..., Any] | None) -> int:
        """Take the steps and return the status with which they ended."""
        losses: list[float] = []
        while self.memory < maxiter:
            try:
                losses.append(self._step())
            except FloatingPointError:
                return NOT_FINITE
            except _Spent:
                return ALL_EVALUATIONS
            if callback is not None:
                try:
                    ends = self._call(callback, losses[-1])
                except StopIteration:
                    return STOPPED
                if isinstance(ends, bool | np.bool_) and ends:
                    return STOPPED
            if tol is not None and len(losses) % window == 0 and len(losses) >= 2 * window:
                latest, before = np.mean(losses[-window:]), np.mean(losses[-2 * window : -window])
                if abs(latest - before) < tol:
                    return CONVERGED
        return ALL_STEPS

    def result(self, status: int, tol: float | None) -> OptimizeResult:
        """The last point, the one before if fun is not finite there, or the start if that is lower."""
        x, value = self.space.x, self.evaluate(self.space.x) if self.memory else self.first
        if not math.isfinite(value) and self.nfev < self.budget:
            x, value = self.before, self.evaluate(self.before)
        if not (value <= self.first or (math.isfinite(value) and math.isnan(self.first))):
            x, value = self.start, self.first
            status = status if status in (NOT_FINITE, STOPPED) else WORSE
        spent = status in (ALL_STEPS, ALL_EVALUATIONS) and tol is None and self.memory > 0
        counts = {"nfev": self.nfev, "nit": self.memory, "status": status, "message": MESSAGES[status]}
        done = math.isfinite(value) and (status == CONVERGED or spent)
        return OptimizeResult(x=x.numpy().copy(), fun=value, success=done, **counts)

    def _value(self, x: Tensor) -> Tensor:
        if self.nfev >= self.budget - 1:  # the last is for the end
            raise _Spent
        return torch.tensor(self.evaluate(x), dtype=torch.float64, device=CPU)

    def _step(self) -> float:
        key = derive(self.key, self.memory)
        estimate = query(self.space, self.estimator, self._value, key, self.state)
        before = self.space.x.clone()
        self.memory, self.state = self.rule.apply_(self.space, estimate.gradient, self.memory), estimate.state
        self.before = before
        return float(estimate.losses.mean())

    def _call(self, callback: Callable[..., Any], loss: float) -> Any:
        x = self.space.x.numpy().copy()
        if set(inspect.signature(callback).parameters) == {"intermediate_result"}:
            return callback(intermediate_result=OptimizeResult(x=x, fun=loss, nit=self.memory, nfev=self.nfev))
        return callback(x)


def _one_number(value: Any) -> float:
    """What fun returned, NaN and infinity too; an array or a list of one entry is one, as for SciPy's methods."""
    if isinstance(value, list | tuple) and len(value) == 1:
        (value,) = value
    shape = getattr(value, "shape", None)
    one = value.reshape(()) if shape and math.prod(shape) == 1 else value
    try:
        return float(plain(one))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        kind = f"an array of shape {tuple(shape)}" if shape else f"{value!r:.200}"
        raise ValueError(f"fun must return one number, got {kind}") from None
