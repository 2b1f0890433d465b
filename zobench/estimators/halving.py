"""Halving at a plateau."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from zobench.estimator import Estimate, Estimator, LineEstimator
from zobench.numbers import count, real, store
from zobench.plan import Plan
from zobench.random.streams import Shape


class Plateau(NamedTuple):
    """The least mean loss since the last halving, the steps since, and the number of halvings."""

    best: float = math.inf
    waited: int = 0
    halvings: int = 0


@dataclass(frozen=True)
class Halving(Estimator):
    """f^h times the estimate of the line at f^h epsilon, h the number of times that the mean loss of the points did not
    fall below its least in `patience` steps, f = `factor`: rate and epsilon are halved at a plateau.

    A loss that is not finite counts as none that is lower. Cost: that of the line. Source: 1.5-SPSA (Chaubard,
    Kochenderfer and Re 2026), whose rate is its epsilon.

    Raises:
        ValueError: patience is no whole number from 1, factor is not in (0, 1), or the line is no LineEstimator.
    """

    line: LineEstimator
    patience: int = 10
    factor: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.line, LineEstimator):
            raise ValueError(f"line is {self.line!r}: give the LineEstimator whose epsilon is to be halved")
        patience = count("patience", self.patience, "give the number of steps without a lower loss, from 1")
        factor = real("factor", self.factor, "give a factor between 0 and 1", lambda f: 0 < f < 1)
        store(self, patience=patience, factor=factor)

    @property
    def perturbed_by(self) -> float | None:
        """The first epsilon."""
        return self.line.perturbed_by

    @property
    def evaluations(self) -> int | None:
        """Those of the line."""
        return self.line.evaluations

    def init(self) -> Plateau:
        """Return that no loss was seen."""
        return Plateau()

    def report(self, before: Plateau, after: Plateau) -> dict[str, int]:
        """Return the number of halvings, at a step that halves."""
        return {"halvings": after.halvings} if after.halvings > before.halvings else {}

    def at(self, state: Plateau) -> LineEstimator:
        """Return the line of a state."""
        return replace(self.line, epsilon=self.line.epsilon * self.factor**state.halvings)

    def ask(self, key: int, state: Plateau, batch: Shape = ()) -> Plan:
        """Return the plan of the line."""
        return self.at(state).ask(key, (), batch)

    def tell(self, plan: Plan, losses: Tensor, state: Plateau) -> Estimate:
        """Return the estimate, and what was seen."""
        told = self.at(state).tell(plan, losses, ())
        mean = float(plan.losses(losses).mean())
        if mean < state.best:
            after = state._replace(best=mean, waited=0)
        elif state.waited + 1 < self.patience:
            after = state._replace(waited=state.waited + 1)
        else:
            after = Plateau(halvings=state.halvings + 1)
        return replace(told, gradient=told.gradient * self.factor**state.halvings, state=after)
