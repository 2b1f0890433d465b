"""One-point estimates against the loss of the step before."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.combination import Combination, Term
from zobench.estimator import Estimate, Estimator, LineEstimator
from zobench.law import Law
from zobench.layout import CPU
from zobench.numbers import store
from zobench.plan import Plan
from zobench.random.streams import Shape
from zobench.stencil import OnePointStencil


@dataclass(frozen=True)
class Residual(Estimator):
    """g_t = (1/n) sum_i [f_t(x_t + e u_i) - b_t] / e u_i, b_t the mean loss of the points of the step before.

    b_t does not depend on u_i, so that E g_t is that of the one-point estimate f(x + e u) / e u; the second moment
    falls from (|f| / e)^2 d to that of the change of f in one step. The first step has no b: its estimate is 0. So is
    that of a step after losses that were not finite. The state is b, one number. Cost: n loss evaluations.
    Source: Zhang, Zhou, Ji and Zavlanos 2022, at n = 1.

    Raises:
        ValueError: as for LineEstimator.
    """

    law: Law
    epsilon: float
    n: int = 1

    def __post_init__(self) -> None:
        line = self._line
        store(self, epsilon=line.epsilon, n=line.n)

    @property
    def _line(self) -> LineEstimator:
        return LineEstimator(self.law, OnePointStencil(), self.epsilon, self.n)

    @property
    def evaluations(self) -> int:
        """One a direction."""
        return self.n

    def init(self) -> Tensor:
        """Return NaN: no loss was seen."""
        return torch.tensor(math.nan, dtype=torch.float64, device=CPU)

    def ask(self, key: int, state: Tensor, batch: Shape = ()) -> Plan:
        """Return n lines with one point each."""
        return self._line.ask(key, (), batch)

    def tell(self, plan: Plan, losses: Tensor, state: Tensor) -> Estimate:
        """Return the estimate, and the mean of these losses."""
        seen, before = losses[..., 0], state[..., None]
        coefficients = plan.weights[..., 0] * (seen - torch.where(before.isfinite(), before, seen))
        gradient = Combination((Term(plan.law.credit, plan.key, coefficients, plan.indices),))
        return Estimate(gradient, seen.mean(-1))
