"""Every check of zobench.testing on the estimator, a test each, and what they do not know of it."""

from zobench_staircase import Staircase

import zobench
from zobench.testing import Promises, check_estimator, parametrize_with_checks

PROMISES = Promises(mean=1.0, quadratic=True, order=2, shift=True, linear=True, directions=True, evaluations=8)


def gaussian(epsilon=1e-2):
    return Staircase(epsilon, n=3, law=zobench.Gaussian())


@parametrize_with_checks([Staircase, gaussian])
def test_estimator(check):
    check()


def test_promises_beyond_what_an_estimator_declares():
    assert not check_estimator(Staircase, promises=PROMISES).failed


def test_one_step_of_the_staircase_is_a_central_difference():
    x = zobench.testing.examples.point(4)
    central = zobench.LineEstimator(zobench.Rademacher(), zobench.CentralStencil(), 0.1)
    (ours,) = zobench.estimate(Staircase(0.1, n=1), lambda y: y.exp().sum(-1), x, key=3)
    (theirs,) = zobench.estimate(central, lambda y: y.exp().sum(-1), x, key=3)
    assert (ours - theirs).abs().max() < 1e-9
