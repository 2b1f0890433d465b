"""What checks found, as a table that a person reads and a program asks."""

from dataclasses import dataclass
from typing import NamedTuple

PASSED, FAILED, MEASURED, WARNED, SKIPPED = "passed", "failed", "measured", "warned", "skipped"


class NotApplicableError(Exception):
    """A check has nothing to look at; the message says why."""


class Finding(NamedTuple):
    """What a check measured: `found` in words and numbers, `holds` whether the property is there, the smallest
    `example` and the `evidence` (n, z, key) where it is not; `warning` where it is there only after a fashion.
    """

    found: str
    holds: bool
    example: str = ""
    evidence: str = ""
    warning: bool = False


class Row(NamedTuple):
    """A check, its status ("passed", "failed", "measured", "warned" or "skipped"), what it expects, what was found."""

    check: str
    status: str
    expected: str
    found: str


@dataclass(frozen=True)
class Report:
    """The rows of all checks of one subject; printed, a table."""

    subject: str
    rows: tuple[Row, ...]

    def with_status(self, status: str) -> list[Row]:
        """Return the rows of a status."""
        return [row for row in self.rows if row.status == status]

    @property
    def failed(self) -> list[str]:
        """The names of the checks that failed."""
        return [row.check for row in self.with_status(FAILED)]

    def require(self) -> "Report":
        """Return the report.

        Raises:
            CheckFailedError: a check failed; the message has what each expected and found.
        """
        if self.failed:
            raise CheckFailedError(self)
        return self

    def __str__(self) -> str:
        width = max((len(row.check) for row in self.rows), default=0)
        lines = [f"  {row.status:8}  {row.check:{width}}  {row.found}" for row in self.rows]
        counts = (f"{len(self.with_status(s))} {s}" for s in (PASSED, FAILED, MEASURED, WARNED, SKIPPED))
        return "\n".join([self.subject, *lines, "  " + ", ".join(counts)])


class CheckFailedError(AssertionError):
    """Some checks failed; `report` has all of them."""

    def __init__(self, report: Report) -> None:
        self.report = report
        parts = [f"- {row.check}: expected {row.expected}; found {row.found}" for row in report.with_status(FAILED)]
        super().__init__("\n".join([f"{report.subject}: {len(parts)} of {len(report.rows)} checks failed", *parts]))
