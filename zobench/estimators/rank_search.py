"""Search by ranks: an oracle that says which points are better, and never how much."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.combination import Combination, Term
from zobench.estimator import Estimate, Estimator, More
from zobench.estimators.points import RATE, require_single, require_unit, single
from zobench.law import Law
from zobench.layout import CPU
from zobench.maps import Ranks, Scalars
from zobench.numbers import count, real, store
from zobench.plan import Plan
from zobench.random.streams import Shape


class Search(NamedTuple):
    """The directions of the searches in a row that found nothing, summed, and their number; within a step also the
    direction that is searched along and the probe of the lowest loss.
    """

    summed: Combination = Combination()
    rounds: int = 0
    direction: Combination | None = None
    probe: Combination | None = None


@dataclass(frozen=True)
class RankSearch(Estimator):
    """g = (1/n) sum_i w_(rank of f(x + e u_i)) u_i with the weights of `Ranks(top)`; then the best of x, the best probe
    and x - step decay^j g, j = 0 ... n - 3, and the direction with which SGD at the rate `lr` steps to that point.

    Only the order of the losses of a round is used: f and any increasing function of f have the same iterates, to the
    bit, and a person or a judge can answer (`JointOracle`). Where x itself is the best, the step is 0 and g is averaged
    with those of the searches after it, up to `averaged`, until one finds a better point. Equal losses stay. Losses
    that are not finite lose. Cost: 2 n loss evaluations. Source: Tang et al. 2024, arXiv 2303.03751 (ZO-RankSGD), whose
    code has weights that do not sum to 0 (see `Ranks`) and averages without a bound.

    Raises:
        ValueError: epsilon, step or lr is not positive, decay is not in (0, 1), n is below 3, top is not from 1 to n,
            averaged is no whole number from 1, or `Law.unit` is not 1.
    """

    law: Law
    epsilon: float
    n: int = 10
    top: int = 3
    step: float = 1e-2
    decay: float = 0.5
    averaged: int = 10
    lr: float = 1e-3

    def __post_init__(self) -> None:
        names = {"epsilon": "give a positive displacement", "step": "give the first step of the search", "lr": RATE}
        positive = {name: real(name, getattr(self, name), told, lambda x: x > 0) for name, told in names.items()}
        decay = real("decay", self.decay, "give a factor between 0 and 1", lambda factor: 0 < factor < 1)
        n = count("n", self.n, "give the number of probes, 3 or more: n - 2 points are searched", least=3)
        averaged = count("averaged", self.averaged, "give the number of directions that are averaged at most, from 1")
        top = count("top", self.top, "give the number of probes that are told apart, from 1")
        if top > n:
            raise ValueError(f"top is {top}, but a step has {n} probes: give at most {n}")
        store(self, **positive, decay=decay, n=n, averaged=averaged, top=top)
        require_unit(self.law)

    @property
    def evaluations(self) -> int:
        """The probes, and as many points of the search."""
        return 2 * self.n

    @property
    def bounded(self) -> bool:
        """True."""
        return True

    @property
    def map(self) -> Ranks:
        """The weights of the probes by their ranks."""
        return Ranks(top=self.top)

    @property
    def lengths(self) -> list[float]:
        """Step decay^j, the steps of the search along -g, float (n - 2,)."""
        return [self.step * self.decay**j for j in range(self.n - 2)]

    def init(self) -> Search:
        """Return that nothing was searched."""
        return Search()

    def ask(self, key: int, state: Search, batch: Shape = ()) -> Plan:
        """Return the probes, or the points of the search, x first and the best probe last."""
        require_single(self, batch)
        if state.direction is None or state.probe is None:
            offsets = torch.full((self.n, 1), self.epsilon, dtype=torch.float64, device=CPU)
            return Plan(self.law, key, offsets, torch.zeros_like(offsets))
        reaches = [[0.0], *([-length] for length in self.lengths), [self.epsilon]]
        offsets = torch.tensor(reaches, dtype=torch.float64, device=CPU)
        along = (*(state.direction for _ in reaches[1:]), state.probe)
        return Plan(self.law, key, offsets, torch.zeros_like(offsets), along=along)

    def tell(self, plan: Plan, losses: Tensor, state: Search) -> Estimate | More:
        """Return the step to the best point of the search; or ask for the search."""
        seen = torch.where(losses.isnan(), torch.inf, losses)
        best = int(seen[:, 0].argmin())
        if state.direction is None or state.probe is None:
            weights = self.map(Scalars(seen[:, 0], seen, plan.offsets)) / self.n
            summed = state.summed + Combination((Term(plan.law.credit, plan.key, weights),))
            rounds = state.rounds + 1
            probe = single(self.law, plan.key, best)
            return More(Search(summed, rounds, summed * (1.0 / rounds), probe))
        if best == 0:
            kept = Search(state.summed, state.rounds) if state.rounds < self.averaged else Search()
            return Estimate(Combination(), kept)
        if best == len(seen) - 1:
            return Estimate(state.probe * (-self.epsilon / self.lr), Search())
        return Estimate(state.direction * (self.lengths[best - 1] / self.lr), Search())
