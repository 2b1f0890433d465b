"""zeroth_order: a method of scipy.optimize.minimize that takes the step of FlatSpace and SGD."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import LinearConstraint, minimize, rosen, rosen_der

from zobench import SGD, FlatSpace, keyed, methods, query
from zobench.integrations.scipy import zeroth_order

pytestmark = pytest.mark.usefixtures("one_thread")

START = np.array([1.0, -2.0, 0.5])
MEZO = methods.make("mezo", n=2)


def bowl(x: np.ndarray, scale: float = 1.0) -> float:
    assert x.shape == (3,) and x.dtype == np.float64
    return scale * float(x @ x)


@pytest.mark.parametrize("estimator", [MEZO, methods.make("forward"), methods.make("mezo", epsilon="auto")], ids=repr)
def test_the_step_is_that_of_a_flat_space(estimator):
    calls = []

    def counted(x: np.ndarray) -> float:
        calls.append(x)
        return bowl(x)

    options = {"lr": 0.05, "estimator": estimator, "key": 3, "maxiter": 7}
    found = minimize(counted, START, method=zeroth_order, options=options)
    space, state, memory, queries = FlatSpace(torch.tensor(START)), estimator.init(), 0, 0
    for key, _ in keyed(range(7), 3):
        told = query(space, estimator, lambda x: torch.from_numpy(np.array(bowl(x.numpy()))), key, state)
        memory, state = SGD(0.05).apply_(space, told.gradient, memory), told.state
        queries += told.queries
    assert np.allclose(found.x, space.x.numpy(), rtol=1e-12)
    assert not np.allclose(found.x, START, rtol=0.1)
    assert found.nfev == len(calls) == queries + 1 and found.nit == 7
    assert found.fun == pytest.approx(bowl(found.x), rel=1e-12)
    assert (found.success, found.status) == (True, 1)


def test_it_minimises_and_a_schedule_is_a_rate():
    found = minimize(
        bowl,
        START,
        args=(2.0,),
        method=zeroth_order,
        options={"lr": lambda step: 0.1 / (1 + step / 100), "maxiter": 800},
    )
    assert found.fun < 1e-6 and np.abs(found.x).max() < 1e-3
    assert np.array_equal(START, [1.0, -2.0, 0.5])  # x0 is not written to
    ridge = minimize(rosen, [0.0, 0.0], method=zeroth_order, options={"lr": 1e-3, "maxiter": 3000, "estimator": MEZO})
    assert ridge.fun < 0.1 * rosen(np.zeros(2))


def test_without_maxiter_200_steps_a_dimension():
    assert minimize(bowl, START, method=zeroth_order, options={"lr": 0.0}).nit == 600


def test_tol_ends_it_where_the_loss_stands():
    options = {"lr": 0.05, "maxiter": 5000, "window": 50}
    found = minimize(bowl, START, method=zeroth_order, tol=1e-4, options=options)
    assert (found.success, found.status) == (True, 0) and "tol" in found.message
    assert 100 <= found.nit < 1000 and found.nit % 50 == 0 and found.fun < 1e-3
    early = minimize(bowl, START, method=zeroth_order, tol=1e-300, options={**options, "maxiter": 60})
    assert (early.success, early.status, early.nit) == (False, 1, 60)


def test_callbacks_of_both_kinds():
    points, results = [], []
    minimize(bowl, START, method=zeroth_order, callback=lambda x: points.append(x), options={"lr": 0.1, "maxiter": 5})

    def told(intermediate_result):
        results.append(intermediate_result)
        if len(results) == 3:
            raise StopIteration

    found = minimize(bowl, START, method=zeroth_order, callback=told, options={"lr": 0.1, "maxiter": 5})
    assert len(points) == 5 and (found.nit, found.status, found.success) == (3, 3, False)
    assert all(np.array_equal(a.x, b) for a, b in zip(results, points[:3], strict=True))
    assert [r.nfev for r in results] == [2, 4, 6] and np.array_equal(found.x, points[2])
    assert found.nfev == 7


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_it_where_it_was(bad):
    seen = []

    def breaks(x: np.ndarray) -> float:
        seen.append(x)
        return bad if len(seen) in (7, 8) else bowl(x)

    found = minimize(breaks, START, method=zeroth_order, options={"lr": 0.05, "maxiter": 20})
    three = minimize(bowl, START, method=zeroth_order, options={"lr": 0.05, "maxiter": 3})
    assert (found.success, found.status, found.nit) == (False, 2, 3) and "lower lr" in found.message
    assert np.array_equal(found.x, three.x) and found.nfev == 9


def test_what_is_not_supported_is_told():
    options = {"lr": 0.1, "maxiter": 1}
    with pytest.raises(ValueError, match="without bounds"):
        minimize(bowl, START, method=zeroth_order, bounds=[(0, 1)] * 3, options=options)
    with pytest.raises(ValueError, match="without bounds"):
        minimize(bowl, START, method=zeroth_order, constraints=LinearConstraint(np.eye(3), 0, 1), options=options)
    with pytest.raises(ValueError, match="without bounds"):
        minimize(bowl, START, method=zeroth_order, constraints=({"type": "eq", "fun": bowl},), options=options)
    with pytest.warns(RuntimeWarning, match="does not use derivatives"):
        minimize(rosen, START, method=zeroth_order, jac=rosen_der, options={"lr": 1e-4, "maxiter": 1})
    with pytest.raises(TypeError, match="'lr'"):
        minimize(bowl, START, method=zeroth_order)
    with pytest.raises(TypeError, match="rate"):
        minimize(bowl, START, method=zeroth_order, options={**options, "rate": 1})
    with pytest.raises(ValueError, match="maxiter is 0"):
        minimize(bowl, START, method=zeroth_order, options={"lr": 0.1, "maxiter": 0})


def test_disp_prints_the_end(capsys):
    minimize(bowl, START, method=zeroth_order, options={"lr": 0.1, "maxiter": 2, "disp": True})
    assert "2 steps, 5 evaluations" in capsys.readouterr().out
