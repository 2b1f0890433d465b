"""Central differences at n distances along n directions."""

from dataclasses import dataclass

import torch

from zobench import Combination, Estimate, Estimator, Law, Plan, Rademacher, Term

__all__ = ["Staircase"]


@dataclass(frozen=True)
class Staircase(Estimator):
    """(1/n) sum_i [f(x + e_i u_i) - f(x - e_i u_i)] / (2 e_i) u_i, e_i = epsilon i / n for i = 1 ... n.

    E[g] = grad f on quadratic functions, and the bias grows as epsilon^2. Cost: 2 n evaluations.
    """

    epsilon: float = 1e-2
    n: int = 4
    law: Law = Rademacher()
    linear = True

    @property
    def evaluations(self) -> int:
        """Loss evaluations of a step."""
        return 2 * self.n

    def ask(self, key, state, batch=()):
        """Return the plan: n lines with two points each."""
        e = self.epsilon * torch.arange(1, self.n + 1, dtype=torch.float64) / self.n
        offsets = torch.stack((e, -e), -1).expand(*batch, self.n, 2)  # (*batch, lines, points a line)
        return Plan(self.law, key, offsets, 1 / (2 * self.n * offsets))

    def tell(self, plan, losses, state):
        """Return the estimate of the losses, shaped like the plan's offsets."""
        coefficients = (plan.weights * losses).sum(-1)
        return Estimate(Combination((Term(plan.law.credit, plan.key, coefficients),)), state)
