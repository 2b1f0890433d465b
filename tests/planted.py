"""All planted mistakes; run as a program, the table mistake x check."""

import sys
import warnings

import planted_functions  # noqa: F401 which adds its own
from planted_estimators import PLANTED

from zobench.testing import CHECKS, CheckFailedError, Report, check_estimator


def report_of(name: str) -> Report:
    """The report of a mutant, whatever fails in it."""
    mutant = PLANTED[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return check_estimator(mutant.target(), promises=mutant.promises)
        except CheckFailedError as failed:
            return failed.report


def main(chosen: list[str]) -> int:
    """Print the table: a row for each mutant, X where a check fails and * where it is the one meant for it."""
    names = [check.name for check in CHECKS]
    print("\n".join(f"{chr(ord('a') + i)}  {name}" for i, name in enumerate(names)))
    print(" " * 18, *(chr(ord("a") + i) for i in range(len(names))))
    missed = 0
    for name in chosen or PLANTED:
        mutant = PLANTED[name]
        failed = set(report_of(name).failed)
        missed += mutant.caught_by not in failed
        marks = ["*" if c in failed and c == mutant.caught_by else "X" if c in failed else "." for c in names]
        print(f"{name:18}", *marks, f" {mutant.mistake}" + (" MISSED" * (mutant.caught_by not in failed)))
    print(f"{len(chosen or PLANTED) - missed} of {len(chosen or PLANTED)} are caught by the check meant for them")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
