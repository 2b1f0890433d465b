"""Random search: guess, and keep what is better."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.combination import Combination, Term
from zobench.estimator import Estimate, Estimator, LineEstimator
from zobench.estimators.points import RATE, require_unit
from zobench.law import Law
from zobench.numbers import real, store
from zobench.plan import Plan
from zobench.random.streams import Shape
from zobench.stencil import ForwardStencil


@dataclass(frozen=True)
class RandomSearch(Estimator):
    """The best of x and x + e u_i, i = 1 ... n: returns -(e / lr) u_b, with which SGD at the rate `lr` steps to the
    best point, and 0 where that is x, as of equal losses.

    Sequential at n = 1: a guess round x, kept if it is better. `lr` must be the rate of the rule that steps; the size
    of a step is e. Losses that are not finite lose. Cost: n + 1 loss evaluations. Source: Rastrigin 1963.

    Raises:
        ValueError: as for LineEstimator; lr is not positive; or `Law.unit` is not 1.
    """

    law: Law
    epsilon: float
    n: int = 1
    lr: float = 1e-3

    def __post_init__(self) -> None:
        line = self._line
        store(self, epsilon=line.epsilon, n=line.n, lr=real("lr", self.lr, RATE, lambda lr: lr > 0))
        require_unit(self.law)

    @property
    def _line(self) -> LineEstimator:
        return LineEstimator(self.law, ForwardStencil(), self.epsilon, self.n)

    @property
    def evaluations(self) -> int:
        """The guesses, and x."""
        return self.n + 1

    @property
    def bounded(self) -> bool:
        """True."""
        return True

    def ask(self, key: int, state: tuple[()], batch: Shape = ()) -> Plan:
        """Return x and the guesses."""
        plan = self._line.ask(key, (), batch)
        return Plan(self.law, key, plan.offsets, torch.zeros_like(plan.weights))

    def tell(self, plan: Plan, losses: Tensor, state: tuple[()]) -> Estimate:
        """Return the step to the best point."""
        seen = torch.where(losses.isnan(), torch.inf, losses)
        at_base = plan.offsets == 0
        base = torch.where(at_base, seen, torch.inf).amin((-2, -1))
        guesses = torch.where(at_base, torch.inf, seen).amin(-1)
        best, index = guesses.min(-1)
        chosen = torch.nn.functional.one_hot(index, self.n).double() * (best < base)[..., None]
        return Estimate(Combination((Term(self.law, plan.key, chosen * (-self.epsilon / self.lr)),)), state)
