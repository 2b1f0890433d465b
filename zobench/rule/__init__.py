"""Update rules: what is done with a gradient estimate. They are not part of the estimator."""

from zobench.rule.adam import Adam
from zobench.rule.momentum import Momentum
from zobench.rule.rule import Memory, ScheduledRule, UpdateRule
from zobench.rule.schedule import Schedule, schedule
from zobench.rule.sgd import SGD
from zobench.rule.table import RULES, parse

__all__ = [
    "RULES",
    "SGD",
    "Adam",
    "Memory",
    "Momentum",
    "Schedule",
    "ScheduledRule",
    "UpdateRule",
    "parse",
    "schedule",
]
