"""SVRG: a control variate from a snapshot of the weights."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from zobench.combination import Combination
from zobench.estimator import Estimate, Estimator, LineEstimator, More
from zobench.numbers import count, real, store
from zobench.plan import Plan
from zobench.random.keys import derive
from zobench.random.streams import Shape

ANCHOR = "anchor"


class Progress(NamedTuple):
    """The step, the estimate at x on the minibatch within a step, and that of the whole loss at the snapshot."""

    step: int = 0
    here: Combination | None = None
    anchor: Combination = Combination()


@dataclass(frozen=True)
class SVRG(Estimator):
    """g = g_B(x) - g_B(y) + g(y): y is a snapshot of x, taken every `every` steps; g_B and g are the line's estimates
    of the minibatch's loss and of the loss named `whole`, g_B(x) and g_B(y) along the same directions.

    E g = E g(x) over minibatches. Near y the differences of both minibatches and directions cancel: Var g falls with
    |x - y|^2, given g(y), whose directions are drawn once a snapshot. At a step that takes a snapshot g_B(x) = g_B(y),
    and g is `boost` g(y). The space holds a copy of the weights; g(y) is scalars and a key. Cost: E + 2 (every - 1) E
    loss evaluations in `every` steps, E those of the line. f is a dictionary of losses: the minibatch's under "", the
    whole under `whole`; with whole="" the minibatch stands for it, as in the published code.

    Deviation: the paper steps along g(y) at a rate of its own, 1e-3 beside 1e-6: `boost` 1000; by default one rate
    serves both. Source: Gautam et al. 2024 (MeZO-SVRG).

    Raises:
        ValueError: every is no whole number from 1, boost is not positive, or the law reads the weights, so that the
            directions at the snapshot would be others.
    """

    line: LineEstimator
    every: int = 2
    whole: str = "whole"
    boost: float = 1.0

    def __post_init__(self) -> None:
        every = count("every", self.every, "give the number of steps that a snapshot serves, from 1")
        store(self, every=every, boost=real("boost", self.boost, "give a positive number", lambda b: b > 0))
        if not isinstance(self.line, LineEstimator):
            raise ValueError(f"line is {self.line!r}: give the LineEstimator whose variance is to fall")
        if self.line.law.reads_weights:
            raise ValueError(f"{self.line.law!r} reads the weights: its directions at the snapshot are others")

    @property
    def perturbed_by(self) -> float | None:
        """The epsilon of the line."""
        return self.line.perturbed_by

    @property
    def evaluations(self) -> int:
        """The average of a step, rounded up."""
        each = self.line.evaluations or 0
        return -(-(2 * self.every - 1) * each // self.every)

    def init(self) -> Progress:
        """Return step 0."""
        return Progress()

    def ask(self, key: int, state: Progress, batch: Shape = ()) -> Plan:
        """Return the plan of the line: for the whole loss, with a snapshot; or at x; or at the snapshot."""
        if state.step % self.every == 0:
            return replace(self.line.ask(derive(key, ANCHOR), (), batch), closure=self.whole, keep=ANCHOR)
        plan = self.line.ask(key, (), batch)
        return plan if state.here is None else replace(plan, base=ANCHOR)

    def tell(self, plan: Plan, losses: Tensor, state: Progress) -> Estimate | More:
        """Return the estimate; or ask for the second round, at the snapshot."""
        gradient = self.line.tell(plan, losses, ()).gradient
        if plan.keep:
            return Estimate(gradient * self.boost, Progress(state.step + 1, None, gradient))
        if state.here is None:
            return More(state._replace(here=gradient))
        (here,), (there,) = state.here.terms, gradient.terms
        change = here._replace(coefficients=here.coefficients - there.coefficients)
        return Estimate(Combination((change,)) + state.anchor, Progress(state.step + 1, None, state.anchor))
