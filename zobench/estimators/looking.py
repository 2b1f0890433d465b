"""Steps that are looked at before they are taken: the best of three points, and blocking."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.combination import Combination
from zobench.estimator import Estimate, Estimator, LineEstimator, More
from zobench.estimators.points import RATE
from zobench.layout import CPU
from zobench.numbers import real, store
from zobench.plan import Plan
from zobench.random.streams import Shape


class Looked(NamedTuple):
    """The gradient that is looked along, in the second round of a step."""

    gradient: Combination | None = None


@dataclass(frozen=True)
class _Looking(Estimator):
    line: LineEstimator
    lr: float = 1e-3

    def __post_init__(self) -> None:
        store(self, lr=real("lr", self.lr, RATE, lambda lr: lr > 0))
        if not isinstance(self.line, LineEstimator):
            raise ValueError(f"line is {self.line!r}: give the LineEstimator whose step is compared")

    @property
    @abstractmethod
    def multiples(self) -> tuple[float, ...]:
        """The steps that are compared, in multiples of the gradient's; staying is the first."""

    @abstractmethod
    def chosen(self, losses: Tensor) -> Tensor:
        """Return the index of the multiple that is taken, of the losses (*batch, multiples)."""

    @property
    def perturbed_by(self) -> float | None:
        """The epsilon of the line."""
        return self.line.perturbed_by

    @property
    def evaluations(self) -> int:
        """Those of the line, and one for each multiple."""
        return (self.line.evaluations or 0) + len(self.multiples)

    def init(self) -> Looked:
        """Return that no gradient is looked along."""
        return Looked()

    def ask(self, key: int, state: Looked, batch: Shape = ()) -> Plan:
        """Return the plan of the line; then the points of its steps."""
        if state.gradient is None:
            return self.line.ask(key, (), batch)
        offsets = torch.tensor([[-self.lr * m for m in self.multiples]], dtype=torch.float64, device=CPU)
        offsets = offsets.expand(*batch, 1, -1)
        return Plan(self.line.law, key, offsets, torch.zeros_like(offsets), along=(state.gradient,))

    def tell(self, plan: Plan, losses: Tensor, state: Looked) -> Estimate | More:
        """Return the multiple of the gradient that was chosen; a loss that is NaN counts as infinite."""
        if state.gradient is None:
            return More(Looked(self.line.tell(plan, losses, ()).gradient))
        index = self.chosen(torch.where(losses.isnan(), torch.inf, losses)[..., 0, :])
        taken = torch.tensor(self.multiples, dtype=torch.float64, device=CPU)[index]
        terms = (t._replace(coefficients=t.coefficients * taken[..., None]) for t in state.gradient.terms)
        return Estimate(Combination(tuple(terms)), Looked())


@dataclass(frozen=True)
class Conservative(_Looking):
    """The best of x, x - lr g and x + lr g, g the estimate of the line: returns s g with s = 0, 1 or -1, so that SGD at
    the learning rate `lr` steps to the best point; equal losses stay.

    `lr` must be the rate of the rule that steps. The loss of the minibatch never rises by a step; under noise the least
    of three is an optimistic one. Cost: 3 loss evaluations beside those of the line. Source: Kim et al. 2021, "ZO-SGD-
    Cons" of Zhang et al. 2024, arXiv 2402.11592.

    Raises:
        ValueError: lr is not positive, or the line is no LineEstimator.
    """

    @property
    def multiples(self) -> tuple[float, ...]:
        """0, 1 and -1."""
        return (0.0, 1.0, -1.0)

    def chosen(self, losses: Tensor) -> Tensor:
        """Return the index of the least loss, the first of equal ones."""
        return losses.argmin(-1)


@dataclass(frozen=True)
class Blocking(_Looking):
    """g where f(x - lr g) <= f(x) + tolerance, else 0: Spall's blocking of steps that raise the loss.

    `lr` must be the rate of the rule that steps. Spall takes for the tolerance two standard deviations of the noise of
    a loss. Cost: 2 loss evaluations beside those of the line. Source: Spall 1998, section III.B.

    Raises:
        ValueError: as for Conservative; or the tolerance is negative.
    """

    tolerance: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        advice = "give the rise of the loss that is accepted, 0 or more"
        store(self, tolerance=real("tolerance", self.tolerance, advice, lambda rise: rise >= 0))

    @property
    def multiples(self) -> tuple[float, ...]:
        """0 and 1."""
        return (0.0, 1.0)

    def chosen(self, losses: Tensor) -> Tensor:
        """Return 1 where the loss after the step is at most the tolerance above that before it."""
        return (losses[..., 1] <= losses[..., 0] + self.tolerance).long()
