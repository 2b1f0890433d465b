"""A direction from probes: low losses minus high ones."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.combination import Combination
from zobench.estimator import Estimate, Estimator, More, weighted_sum
from zobench.estimators.points import require_single, require_unit, single
from zobench.law import Law
from zobench.layout import CPU
from zobench.numbers import count, flag, real, store
from zobench.plan import Plan
from zobench.random.streams import Shape

HALF = 0.5


class Guide(NamedTuple):
    """The direction of the lowest loss so far, and within a step the guiding vector."""

    best: Combination | None = None
    vector: Combination | None = None


@dataclass(frozen=True)
class Guided(Estimator):
    """g = [f(x + e v) - f(x - e v)] / (2e) v, v the mean of those of n probes u_i with the lower f(x + e u_i), less the
    mean of the others (of odd n the middle one is with neither).

    With `remember` the direction of the lowest loss is one of the n probes of the next step, evaluated anew. Without it
    and before selection E v v^T = (4 / n) I, which the published method does not divide out: at n = 2 its rate is twice
    that of mezo. Selection by the loss makes v and the slope along it dependent: g is no unbiased estimate, even of a
    linear f. Cost: n + 2 loss evaluations. Source: MeZO-GV, arXiv 2601.04710, whose code has n = 2 and remembers.

    Raises:
        ValueError: epsilon is not positive, n is no whole number from 2, or an offset of the law is not its direction's
            length (`Law.unit` is not 1): v is a sum, and has no such unit.
    """

    law: Law
    epsilon: float
    n: int = 2
    remember: bool = True

    def __post_init__(self) -> None:
        epsilon = real("epsilon", self.epsilon, "give a positive displacement, such as 1e-3", lambda e: e > 0)
        n = count("n", self.n, "give the number of probes a step, 2 or more", least=2)
        store(self, epsilon=epsilon, n=n, remember=flag("remember", self.remember))
        require_unit(self.law)

    @property
    def evaluations(self) -> int:
        """Those of the probes, and two along v."""
        return self.n + 2

    def init(self) -> Guide:
        """Return that no direction is remembered."""
        return Guide()

    def ask(self, key: int, state: Guide, batch: Shape = ()) -> Plan:
        """Return the probes, or the two points along v."""
        require_single(self, batch)
        if state.vector is not None:
            offsets = torch.tensor([[self.epsilon, -self.epsilon]], dtype=torch.float64, device=CPU)
            return Plan(self.law, key, offsets, offsets.reciprocal() * HALF, along=(state.vector,))
        offsets = torch.full((self.n, 1), self.epsilon, dtype=torch.float64, device=CPU)
        return Plan(self.law, key, offsets, torch.zeros_like(offsets), along=tuple(self._probes(key, state)))

    def tell(self, plan: Plan, losses: Tensor, state: Guide) -> Estimate | More:
        """Return the estimate along v; or ask for it."""
        if state.vector is not None:
            slope = weighted_sum(plan.weights, losses)[0]  # may be no number: then the step is skipped
            terms = (t._replace(coefficients=t.coefficients * slope) for t in state.vector.terms)
            return Estimate(Combination(tuple(terms)), Guide(state.best))
        order = torch.where(losses.isnan(), torch.inf, losses)[:, 0].argsort(stable=True).tolist()
        probes, half = self._probes(plan.key, state), self.n // 2
        low, high = (sum((probes[i] for i in part), Combination()) for part in (order[:half], order[-half:]))
        vector = (low - high) * (1.0 / half)
        return More(Guide(probes[order[0]] if self.remember else None, vector))

    def _probes(self, key: int, state: Guide) -> list[Combination]:
        """The fresh directions, and the remembered one."""
        kept = [] if state.best is None else [state.best]
        return [*(single(self.law, key, i) for i in range(self.n - len(kept))), *kept]
