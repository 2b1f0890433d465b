"""What estimators that choose a point share."""

import torch

from zobench.combination import Combination, Term
from zobench.estimator import Estimator
from zobench.law import Law
from zobench.layout import CPU
from zobench.random.streams import Shape

RATE = "give the positive learning rate of the rule that will step"


def single(law: Law, key: int, index: int) -> Combination:
    """Return one direction with the coefficient 1."""
    return Combination((Term(law, key, torch.ones(1, dtype=torch.float64, device=CPU), (index,)),))


def require_unit(law: Law) -> None:
    """Raise ValueError if it is no Law, or one along which a step and a displacement of the same size differ."""
    if not isinstance(law, Law) or law.unit(4) != 1.0:
        raise ValueError(f"law is {law!r}: give one whose unit is 1, such as gaussian, rademacher or sphere")


def require_single(estimator: Estimator, batch: Shape) -> None:
    """Raise ValueError if several estimates at once are asked of an estimator that follows one."""
    if batch:
        raise ValueError(f"{estimator!r} follows one sequence of points: ask without a batch")
