"""The table of the checks of estimators."""

from zobench.testing.check import Check
from zobench.testing.estimators import batches, bias, contract, faults, first_order, invariance, keys, runs, spread

CHECKS: tuple[Check, ...] = (
    *keys.CHECKS,
    *contract.CHECKS,
    *batches.CHECKS,
    *runs.CHECKS,
    *invariance.CHECKS,
    *first_order.CHECKS,
    *bias.CHECKS,
    *spread.CHECKS,
    *faults.CHECKS,
)
"""One row a property: what it expects, and what must be declared for a subject to be held to it."""
