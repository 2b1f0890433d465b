"""zeroth_order: a method for scipy.optimize.minimize."""

import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.optimize import OptimizeResult
from torch import Tensor

from zobench import methods
from zobench.estimator import Estimator
from zobench.keys import derive
from zobench.query import query
from zobench.rule import SGD, Schedule
from zobench.space import FlatSpace

MEZO = methods.make("mezo")
MESSAGES = {
    0: "the mean loss changes by less than tol from one window to the next",
    1: "maxiter steps were taken",
    2: "a loss or a step is not finite: lower lr or epsilon",
    3: "the callback raised StopIteration",
}


def zeroth_order(
    fun: Callable[..., float],
    x0: Any,
    args: tuple[Any, ...] = (),
    *,
    lr: float | Schedule,
    estimator: Estimator = MEZO,
    key: int = 0,
    maxiter: int | None = None,
    tol: float | None = None,
    window: int = 100,
    callback: Callable[..., Any] | None = None,
    disp: bool = False,
    bounds: Any = None,
    constraints: Any = (),
    jac: Any = None,
    hess: Any = None,
    hessp: Any = None,
) -> OptimizeResult:
    """Minimise fun by x <- x - lr g, g the estimator's, in float64: `minimize(fun, x0, method=zeroth_order,
    options={"lr": 0.01})`.

    Step k draws under derive(key, k). `lr` is a number or a schedule step -> number. Without `tol` all `maxiter` steps
    are taken, 200 times the dimension if it is None; with it the end is where the mean loss of `window` steps differs
    by less than tol from that of the `window` before. The loss of a step is the mean of the points looked at. One more
    evaluation gives `fun` of the result, the last point; nfev counts every one. A callback is given x, or
    `intermediate_result`, as SciPy does, and ends the run by StopIteration. `success` is that tol was reached, or that
    all steps were taken where none was given.

    Raises:
        ValueError: bounds or constraints are given, or maxiter or window is not positive.
        TypeError: lr is missing.
    """
    if bounds is not None or np.any(constraints):
        raise ValueError("zeroth_order minimises without bounds and constraints: put a penalty into fun, or leave them")
    if any(derivative is not None and derivative is not False for derivative in (jac, hess, hessp)):
        warnings.warn("zeroth_order does not use derivatives (jac, hess, hessp)", RuntimeWarning, stacklevel=3)
    run = _Run(fun, x0, args, estimator, SGD(lr), key)
    maxiter = 200 * run.space.layout.dim if maxiter is None else maxiter
    if maxiter < 1 or window < 1:
        raise ValueError(f"maxiter is {maxiter}, window {window}: give whole numbers from 1")
    status = run.go(maxiter, tol, window, callback)
    result = run.result(run.evaluate(run.space.x), status)
    result.success = status == 0 or (status == 1 and tol is None)
    if disp:
        print(f"{result.message}\n  fun {result.fun:g}, {result.nit} steps, {result.nfev} evaluations")
    return result


class _Run:
    def __init__(
        self, fun: Callable[..., float], x0: Any, args: tuple[Any, ...], estimator: Estimator, rule: SGD, key: int
    ) -> None:
        self.fun, self.args, self.estimator, self.rule, self.key = fun, args, estimator, rule, key
        self.space = FlatSpace(torch.tensor(np.asarray(x0, dtype=float).ravel()))
        self.memory, self.state = rule.init(self.space), estimator.init()
        self.nfev = 0

    def evaluate(self, x: Tensor) -> float:
        self.nfev += 1
        return float(np.squeeze(self.fun(x.numpy().copy(), *self.args)))

    def go(self, maxiter: int, tol: float | None, window: int, callback: Callable[..., Any] | None) -> int:
        """Take the steps and return the status with which they ended."""
        losses: list[float] = []
        while self.memory < maxiter:
            try:
                losses.append(self._step())
            except FloatingPointError:
                return 2
            if callback is not None:
                try:
                    self._call(callback, losses[-1])
                except StopIteration:
                    return 3
            if tol is not None and len(losses) % window == 0 and len(losses) >= 2 * window:
                latest, before = np.mean(losses[-window:]), np.mean(losses[-2 * window : -window])
                if abs(latest - before) < tol:
                    return 0
        return 1

    def result(self, value: float, status: int) -> OptimizeResult:
        counts = {"nfev": self.nfev, "nit": self.memory, "status": status, "message": MESSAGES[status]}
        return OptimizeResult(x=self.space.x.numpy().copy(), fun=value, **counts)

    def _value(self, x: Tensor) -> Tensor:
        return torch.tensor(self.evaluate(x), dtype=torch.float64)

    def _step(self) -> float:
        key = derive(self.key, self.memory)
        told = query(self.space, self.estimator, self._value, key, self.state)
        self.memory, self.state = self.rule.apply_(self.space, told.gradient, self.memory), told.state
        return float(told.losses.mean())

    def _call(self, callback: Callable[..., Any], loss: float) -> None:
        x = self.space.x.numpy().copy()
        if set(inspect.signature(callback).parameters) == {"intermediate_result"}:
            callback(intermediate_result=OptimizeResult(x=x, fun=loss, nit=self.memory, nfev=self.nfev))
        else:
            callback(x)
