"""Second-order SPSA: the slope along a direction, divided by an averaged estimate of the Hessian."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.combination import Combination, Term
from zobench.estimator import Estimate, Estimator
from zobench.estimators.points import single
from zobench.law import InverseCurvature, Law
from zobench.law.adaptive import Past
from zobench.law.inverse_curvature import SECOND
from zobench.layout import CPU
from zobench.numbers import count, real, store
from zobench.plan import Plan
from zobench.random.keys import derive
from zobench.random.streams import Shape

POINTS = 4


@dataclass(frozen=True)
class SecondOrderSPSA(Estimator):
    """g = (H^2 + floor^2 I)^(-1/2) (1/n) sum_i s_i u_i, s_i = [f(x + c u_i) - f(x - c u_i)] / (2 c): 2SPSA. H is the
    mean of the estimates (h_i / 2) (v_i u_i^T + u_i v_i^T) of all steps so far and of `start` I, h_i = [f(x + c u_i + b
    v_i) - f(x + c u_i) - f(x - c u_i + b v_i) + f(x - c u_i)] / (2 c b).

    On a quadratic f s_i = u_i . grad f and h_i = v_i^T (Hessian) u_i exactly, and E H_i is the Hessian. With SGD at lr
    1 the step is Newton's as far as H is the Hessian; Spall's rate is `Gains(lr, alpha=1)`. c = `epsilon` / (k +
    1)^gamma at step k, and b = `second` / (k + 1)^gamma, `second` that of epsilon where it is 0.

    The noise of an entry of H is of the size of the largest eigenvalue over sqrt(k), so that smaller eigenvalues are
    known late: `start` is best near the largest one, and floor above the noise.

    Cost: 4 n loss evaluations, O(d^3) beside them. Memory: d^2 numbers in the space and in checkpoints, so that more
    than `most` parameters are refused before a loss is evaluated. Source: Spall 2000, sections II and III; there the
    positive definite part is left open, and h has v^-1 in place of v, the same under signs.

    Raises:
        ValueError: an option is out of range, or the law's unit is not 1.
    """

    law: Law
    epsilon: float
    n: int = 1
    second: float = 0.0
    gamma: float = 0.101
    start: float = 1.0
    floor: float = 1e-2
    most: int = 1000

    def __post_init__(self) -> None:
        real("epsilon", self.epsilon, "give a positive displacement, such as 1e-3", lambda e: e > 0)
        real("second", self.second, "give the second displacement, or 0 for that of epsilon", lambda e: e >= 0)
        gamma = real(
            "gamma", self.gamma, "give the power with which epsilon falls, 0 or more", lambda power: power >= 0
        )
        n = count("n", self.n, "give the number of directions a step, 1 or more")
        store(self, epsilon=float(self.epsilon), second=float(self.second), gamma=gamma, n=n)
        self._curvature  # noqa: B018 refuses what the law refuses

    @property
    def _curvature(self) -> InverseCurvature:
        return InverseCurvature(self.law, self.start, self.floor, self.most)

    @property
    def evaluations(self) -> int:
        """4 n."""
        return POINTS * self.n

    def init(self) -> Past:
        """Return step 0, which has no past."""
        return Past()

    def displacements(self, step: int) -> tuple[float, float]:
        """Return c and b of a step, counted from 0."""
        falls = float((step + 1) ** self.gamma)
        return self.epsilon / falls, (self.second or self.epsilon) / falls

    def ask(self, key: int, state: Past, batch: Shape = ()) -> Plan:
        """Return the points x + c u, x + c u + b v, x - c u + b v and x - c u of each direction."""
        law, (c, b) = self._curvature.after(state), self.displacements(state.step)
        along = []
        for index in range(self.n):
            u, v = (single(law, each, index) for each in (key, derive(key, SECOND)))
            along += [c * u, c * u + b * v, -c * u + b * v, -c * u]
        offsets = torch.ones((*batch, len(along), 1), dtype=torch.float64, device=CPU)
        return Plan(law, key, offsets, torch.zeros_like(offsets), along=tuple(along))

    def tell(self, plan: Plan, losses: Tensor, state: Past) -> Estimate:
        """Return the slopes divided by H, which has learned from this step, and the past of the next one."""
        c, b = self.displacements(state.step)
        up, up_aside, down_aside, down = losses[..., 0].unflatten(-1, (self.n, POINTS)).unbind(-1)
        slopes = (up - down) / (2 * c)
        curvatures = (up_aside - up - down_aside + down) / (2 * c * b)
        after = state if plan.batch else Past(state.step + 1, plan.key, _finite(curvatures))
        term = Term(self._curvature.after(after, solves=True), plan.key, slopes / self.n)
        return Estimate(Combination((term,)), after)


def _finite(curvatures: Tensor) -> tuple[float, ...]:
    return tuple(curvatures.tolist()) if bool(curvatures.isfinite().all()) else ()
