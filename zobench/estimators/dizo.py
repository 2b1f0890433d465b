"""DiZO: how far each tensor is from where it began, learned by a zeroth-order estimate of its own."""

from dataclasses import dataclass, replace

from torch import Tensor

from zobench.combination import Combination, Term
from zobench.estimator import Estimate, Estimator, LineEstimator
from zobench.estimators.points import RATE, require_single
from zobench.law.radial import Radial
from zobench.numbers import count, real, store
from zobench.plan import Plan
from zobench.random.streams import Shape
from zobench.stencil import CentralStencil

START = Radial().start


@dataclass(frozen=True)
class DiZO(Estimator):
    """The steps of `line`; but each `every`-th step scales the distance of every tensor from the start y of the run,
    x_m <- y_m + (1 + s_m) (x_m - y_m), s = -(1/n) sum_i clip(rate c_i, bound) z_i, c_i = [f(x + h u_i) - f(x - h u_i)]
    / (2 h), h = `reach`, along u_i of `Radial`: random signs z_i, one a tensor. So |s_m| is at most `bound`.

    Returns the way there divided by `lr`, which must be the rate of the rule that steps: SGD goes there. Its variables
    are as many as tensors, so that two evaluations say more of them than of the weights. Cost: that of the line at
    every step. The space holds y, and x - y at such steps, a number a weight each.

    Deviations: the released code scales the key and value projections alone, in several iterations on further
    minibatches between two steps, whose number and units the paper's constants (0.1, 2, 0.1 to 0.3, every 50 to 400
    steps) leave open; it copies the whole model for each evaluation. Source: DiZO 2025 and its code.

    Raises:
        ValueError: line is no LineEstimator, every is no whole number from 2, or reach, rate, bound or lr is not
            positive.
    """

    line: LineEstimator
    every: int = 50
    reach: float = 0.1
    rate: float = 1.0
    bound: float = 0.1
    lr: float = 1e-3

    def __post_init__(self) -> None:
        if not isinstance(self.line, LineEstimator):
            raise ValueError(f"line is {self.line!r}: give the LineEstimator of the steps between")
        advice = {
            "reach": "give the relative change of distances at which losses are compared, above 0",
            "rate": "give the step of relative distances, above 0",
            "bound": "give the largest relative change of a distance, above 0",
            "lr": RATE,
        }
        numbers = {name: real(name, getattr(self, name), told, lambda x: x > 0) for name, told in advice.items()}
        every = count("every", self.every, "give the number of steps from one that scales distances to the next", 2)
        store(self, every=every, **numbers)

    @property
    def scaling(self) -> LineEstimator:
        """The estimate of df / ds."""
        return LineEstimator(Radial(), CentralStencil(), self.reach, self.line.n)

    @property
    def perturbed_by(self) -> float | None:
        """The epsilon of the line."""
        return self.line.perturbed_by

    @property
    def evaluations(self) -> int | None:
        """Those of the line, or of a step that scales, whichever are more."""
        return None if self.line.evaluations is None else max(self.line.evaluations, 2 * self.line.n)

    def init(self) -> int:
        """Return step 0."""
        return 0

    def ask(self, key: int, state: int, batch: Shape = ()) -> Plan:
        """Return the plan of the line, which keeps the start at step 0; or that of the scaling."""
        if state:
            require_single(self, batch)
        if state % self.every == self.every - 1:
            return self.scaling.ask(key, (), batch)
        plan = self.line.ask(key, (), batch)
        return plan if state else replace(plan, keep=START)

    def tell(self, plan: Plan, losses: Tensor, state: int) -> Estimate:
        """Return the estimate of the line, or the way to the scaled distances."""
        if not isinstance(plan.law, Radial):
            return replace(self.line.tell(plan, losses, ()), state=state + 1)
        (term,) = self.scaling.tell(plan, losses, ()).gradient.terms
        n = self.line.n
        moved = (self.rate * n * term.coefficients).clamp(-self.bound, self.bound) / (n * self.lr)
        return Estimate(Combination((Term(plan.law, plan.key, moved, term.indices),)), state + 1)
