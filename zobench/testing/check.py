"""A check as a row of a table, and the run of a table."""

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from zobench.naming import require_known
from zobench.testing.report import FAILED, MEASURED, PASSED, SKIPPED, WARNED, Finding, NotApplicableError, Report, Row


@dataclass(frozen=True)
class Level:
    """How much is spent: samples of an estimator that batches, of one that does not, and keys of a check that is
    exact.
    """

    samples: int
    single: int
    keys: int


LEVELS = {"quick": Level(20_000, 500, 2), "full": Level(200_000, 10_000, 8)}
"""The levels by name."""


@dataclass(frozen=True)
class Check:
    """A property: its name, what it expects in a formula, what must be declared for it to be promised ("" where every
    subject promises it), and the function that measures it.
    """

    name: str
    expected: str
    measure: Callable[[Any, Level], Finding]
    needs: str = ""
    promised: Callable[[Any], bool] = lambda subject: True

    def run(self, subject: Any, level: Level) -> Row:
        """Return the row of a subject: failed only where the property is promised and does not hold."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an estimator may warn of the odd losses that checks give it
                finding = self.measure(subject, level)
        except NotApplicableError as reason:
            return Row(self.name, SKIPPED, self.expected, str(reason))
        except Exception as error:
            finding = Finding(f"{type(error).__name__}: {error}", holds=False)
        return Row(self.name, self._status(finding, self.promised(subject)), self.expected, _told(finding))

    @staticmethod
    def _status(finding: Finding, promised: bool) -> str:
        if not promised:
            return MEASURED
        return FAILED if not finding.holds else WARNED if finding.warning else PASSED


def run(
    name: str,
    checks: Iterable[Check],
    subject: Any,
    level: str = "quick",
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Return the report of these checks; those that are expected to fail are told as measured, with their reason.

    Raises:
        CheckFailedError: a check failed that was not expected to.
        UnknownNameError: no such level, or an expected failure is of no check.
    """
    require_known(level, LEVELS, "level of checks")
    checks, excused = list(checks), dict(expected_failures or {})
    for each in excused:
        require_known(each, [check.name for check in checks], "check")
    rows = [_excused(check.run(subject, LEVELS[level]), excused) for check in checks]
    return Report(name, tuple(rows)).require()


def _excused(row: Row, reasons: Mapping[str, str]) -> Row:
    if row.status != FAILED or row.check not in reasons:
        return row
    return row._replace(status=MEASURED, found=f"{row.found} (expected: {reasons[row.check]})")


def _told(finding: Finding) -> str:
    if finding.holds:
        return finding.found
    example = f"smallest example: {finding.example}" if finding.example else ""
    return "; ".join(filter(None, (finding.found, finding.evidence, example)))
