"""check_estimator: every check on one estimator, in a loop or as a test each."""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from typing import Any

from zobench.estimator import Estimator
from zobench.testing.check import Check, run
from zobench.testing.estimator_subject import EPSILON, Make, as_make
from zobench.testing.estimator_subject import EstimatorSubject as _Made
from zobench.testing.estimators.table import CHECKS
from zobench.testing.promises import Promises
from zobench.testing.report import Report
from zobench.testing.subject import Subject

Target = Make | Estimator | Subject | str


def check_estimator(
    make: Target,
    level: str = "quick",
    promises: Promises | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Return the report of every check of an estimator; it prints as a table.

    A property that the estimator declares is checked, one that it does not is measured: see `Promises`.

    Args:
        make: make(epsilon=1e-2) -> Estimator; or an Estimator, a method as `methods.parse` spells it, or what
            `from_function` makes of a plain function.
        level: "quick", about a second, or "full", ten times the samples and four times the keys.
        promises: what it is held to; by default what an Estimator declares, `Promises.of`, and what `from_function` was
            told.
        expected_failures: names of checks that may fail, with the reason, which the report tells.

    Raises:
        CheckFailedError: an AssertionError; a check failed. Its message says of each what was expected from which
            formula, what was found with n, z and key, and the smallest example; its `report` has all rows.
        TypeError: `make` makes no Estimator.
        UnknownNameError: no such level, or no check of a name that is expected to fail.
    """
    one = subject_of(make, promises)
    return run(one.name, CHECKS, one, level, expected_failures)


def subject_of(make: Target, promises: Promises | None = None) -> Subject:
    """Return what checks are made on."""
    if not isinstance(make, Subject):
        return _Made(as_make(make), EPSILON, promises)
    if promises is None:
        return make
    promising = copy(make)
    promising.promises = promises
    return promising


def parametrize_with_checks(targets: Iterable[Target], level: str = "quick") -> Callable[..., Any]:
    """Return a decorator of a pytest function with a parameter `check`, which is called with every check of every
    target, a test each; the function calls it.

    >>> @parametrize_with_checks(["mezo", "forward:n=2"])
    ... def test_estimator(check):
    ...     check()

    Raises:
        TypeError: a target makes no Estimator.
    """
    import pytest

    cases = [
        pytest.param(_Case(check, subject_of(target), level), id=f"{check.name}-{number}-{_short(target)}")
        for number, target in enumerate(targets)
        for check in CHECKS
    ]
    return pytest.mark.parametrize("check", cases)


class _Case:
    """One check of one subject, skipped where there is nothing to look at."""

    def __init__(self, check: Check, subject: Subject, level: str) -> None:
        self.check, self.subject, self.level = check, subject, level

    def __call__(self) -> Report:
        report = run(self.subject.name, [self.check], self.subject, self.level)
        if report.with_status("skipped"):
            import pytest

            pytest.skip(report.rows[0].found)
        return report


def _short(target: Target) -> str:
    return target if isinstance(target, str) else getattr(target, "__name__", None) or type(target).__name__
