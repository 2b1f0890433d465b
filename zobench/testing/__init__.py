"""Property tests of estimators, laws, rules, spaces and engines, for those that come with zobench and for your own.

`check_estimator` runs every check of the table `CHECKS` on an estimator, or on a plain function by `from_function`.
`zobench.testing.strategies` has Hypothesis strategies, and is the only module that needs it.
"""

from zobench.testing.check import Check, Level
from zobench.testing.check_estimator import check_estimator, parametrize_with_checks
from zobench.testing.engines import check_engine, check_space
from zobench.testing.estimators.table import CHECKS
from zobench.testing.factor import Ratio, name_factor
from zobench.testing.function_subject import FunctionSubject, from_function
from zobench.testing.laws import check_law
from zobench.testing.modules import ModuleShape
from zobench.testing.promises import Promises
from zobench.testing.report import CheckFailedError, Finding, Report, Row
from zobench.testing.rules import check_rule
from zobench.testing.subject import Subject

__all__ = [
    "CHECKS", "Check", "CheckFailedError", "Finding", "FunctionSubject", "Level", "ModuleShape", "Promises", "Ratio",
    "Report", "Row", "Subject", "check_engine", "check_estimator", "check_law", "check_rule", "check_space",
    "from_function", "name_factor", "parametrize_with_checks",
]  # fmt: skip
