"""zeroth_order: a method of scipy.optimize.minimize that takes the step of FlatSpace and SGD."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import Bounds, LinearConstraint, OptimizeWarning, minimize, rosen, rosen_der

from zobench import SGD, FlatSpace, keyed, methods, query
from zobench.integrations.scipy import zeroth_order

pytestmark = [pytest.mark.environment, pytest.mark.usefixtures("one_thread")]

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
    assert found.nfev == len(calls) == queries + 2 and found.nit == 7
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


@pytest.mark.parametrize(("ends", "steps"), [(True, 3), (np.bool_(True), 3), (False, 9), (None, 9), (np.ones(3), 9)])
def test_a_callback_that_returns_true_ends_the_run(ends, steps):
    seen = []

    def told(x):
        seen.append(x)
        return ends if len(seen) == 3 else None

    found = minimize(bowl, START, method=zeroth_order, callback=told, options={"lr": 0.05, "maxiter": 9})
    assert found.nit == len(seen) == steps and found.success == (steps == 9)
    assert (found.status == 3) == ("callback" in found.message) == (steps == 3)


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
    assert [r.nfev for r in results] == [3, 5, 7] and np.array_equal(found.x, points[2])
    assert found.nfev == 8


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_ends_it_where_it_was(bad):
    seen = []

    def breaks(x: np.ndarray) -> float:
        seen.append(x)
        return bad if len(seen) in (8, 9) else bowl(x)

    found = minimize(breaks, START, method=zeroth_order, options={"lr": 0.05, "maxiter": 20})
    three = minimize(bowl, START, method=zeroth_order, options={"lr": 0.05, "maxiter": 3})
    assert (found.success, found.status, found.nit) == (False, 2, 3) and "lower lr" in found.message
    assert np.array_equal(found.x, three.x) and found.nfev == 10


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
    with pytest.warns(OptimizeWarning, match="Unknown solver options: rate, gtol"):
        found = minimize(bowl, START, method=zeroth_order, options={**options, "rate": 1, "gtol": 1e-8})
    assert found.nit == 1
    with pytest.raises(TypeError, match="estimator is 'mezo'"):
        minimize(bowl, START, method=zeroth_order, options={**options, "estimator": "mezo"})
    with pytest.raises(ValueError, match="maxiter is 0"):
        minimize(bowl, START, method=zeroth_order, options={"lr": 0.1, "maxiter": 0})


def test_disp_prints_the_end(capsys):
    minimize(bowl, START, method=zeroth_order, options={"lr": 0.1, "maxiter": 2, "disp": True})
    assert "2 steps, 6 evaluations" in capsys.readouterr().out


def steep(x: np.ndarray) -> float:
    return 50 * float(x @ x)


@pytest.mark.parametrize(("fun", "lr"), [(steep, 0.05), (lambda x: float(np.abs(x).sum()), 1.0)])
@pytest.mark.parametrize("more", [{}, {"tol": 1e300, "window": 5}, {"maxfev": 61}])
def test_a_result_worse_than_the_start_is_no_success(fun, lr, more):
    x0 = np.full(4, 0.01)
    options = {"lr": lr, "maxiter": 30, **more}
    found = minimize(fun, x0, method=zeroth_order, options=options)
    assert (found.success, found.status) == (False, 4) and "lower lr" in found.message
    assert found.fun == fun(x0) == fun(found.x)
    sound = minimize(fun, x0, method=zeroth_order, options={**options, "lr": 1e-4})
    assert sound.success and sound.fun < fun(x0) and sound.status != 4


@pytest.mark.parametrize("estimator", [MEZO, methods.make("forward"), methods.make("mezo", epsilon="auto")], ids=repr)
@pytest.mark.parametrize("maxfev", [1, 2, 3, 8, 50, np.int64(401)])
def test_maxfev_is_never_exceeded(estimator, maxfev):
    calls = []

    def counted(x: np.ndarray) -> float:
        calls.append(x)
        return bowl(x)

    options = {"lr": 0.05, "estimator": estimator, "maxfev": maxfev}
    found = minimize(counted, START, method=zeroth_order, options=options)
    assert found.nfev == len(calls) <= maxfev and found.status == 5
    if maxfev == 401:
        assert found.nfev > 396 and found.success and found.fun < bowl(START)
        free = minimize(
            bowl, START, method=zeroth_order, options={"lr": 0.05, "estimator": estimator, "maxiter": found.nit}
        )
        assert np.array_equal(found.x, free.x)
    if maxfev == 1:
        assert (found.nit, found.success) == (0, False) and np.array_equal(found.x, START)


FREE = LinearConstraint(np.eye(3), -np.inf, np.inf)


@pytest.mark.parametrize(
    "free",
    [{"bounds": [(None, None)] * 3}, {"bounds": Bounds()}, {"bounds": [(-np.inf, np.inf)] * 3}, {"constraints": FREE},
     {"constraints": [FREE]}, {"constraints": []}],
)  # fmt: skip
def test_limits_that_limit_nothing_are_accepted(free):
    assert minimize(bowl, START, method=zeroth_order, options={"lr": 0.1, "maxiter": 2}, **free).nit == 2
    with pytest.raises(ValueError, match="without bounds"):
        half = [(None, None), (None, None), (0.0, None)]
        minimize(bowl, START, method=zeroth_order, bounds=half, options={"lr": 0.1, "maxiter": 2})


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (np.ones(2), r"an array of shape \(2,\)"), (torch.ones(3, 1), r"an array of shape \(3, 1\)"), (None, "None"),
        ("1", "'1'"), ((1.0, 2.0), r"\(1.0, 2.0\)"), (1j, "1j"), (True, "True"),
    ],
)  # fmt: skip
def test_fun_must_return_a_number(returned, told):
    with pytest.raises(ValueError, match=f"fun must return one number, got {told}"):
        minimize(lambda x: returned, START, method=zeroth_order, options={"lr": 0.1, "maxiter": 2})


KINDS = [
    np.float32,
    np.array,
    lambda v: np.array([[v]]),
    torch.tensor,
    lambda v: torch.tensor([v]),
    lambda v: [v],
    lambda v: (np.float64(v),),
]


def test_a_step_out_of_where_fun_is_finite_gives_the_point_before():
    def walled(x: np.ndarray) -> float:
        return bowl(x - 1) if x[0] < 0.97 else math.inf

    found = minimize(walled, np.zeros(3), method=zeroth_order, options={"lr": 0.1, "maxiter": 400})
    assert found.status == 2 and not found.success and math.isfinite(found.fun) and found.fun == bowl(found.x - 1)
    assert found.fun < 0.3 and found.x[0] < 0.97


@pytest.mark.parametrize("x0", [[0.0, math.nan], np.array([1, None], dtype=object), [math.inf]])
def test_a_start_that_is_not_finite_is_told(x0):
    with pytest.raises(ValueError, match=r"x0 is .*: give finite numbers"):
        minimize(bowl, x0, method=zeroth_order, options={"lr": 0.1, "maxiter": 2})


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_are_numbers_of_any_kind(kind):
    def rounded(x: np.ndarray) -> object:
        return kind(float(np.float32(bowl(x))))

    options = {
        "lr": np.float32(0.05),
        "maxiter": np.int64(20),
        "key": np.int8(1),
        "window": 5.0,
        "tol": np.float32(1e-9),
    }
    plain = {"lr": float(np.float32(0.05)), "maxiter": 20, "key": 1, "window": 5, "tol": float(np.float32(1e-9))}
    found = minimize(rounded, START, method=zeroth_order, options=options)
    same = minimize(lambda x: float(np.float32(bowl(x))), START, method=zeroth_order, options=plain)
    assert np.array_equal(found.x, same.x) and found.nit == same.nit
    for name, bad in (("lr", "0.1"), ("lr", math.nan), ("maxiter", 2.5), ("window", 0), ("tol", -1.0), ("maxfev", 0)):
        with pytest.raises(ValueError, match="give"):
            minimize(bowl, START, method=zeroth_order, options={**options, name: bad})
