"""Estimators along lines whose law changes from step to step: a part is held for several steps, or it learns."""

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from torch import Tensor

from zobench.estimator import Estimate, Estimator, LineEstimator, weighted_sum
from zobench.law import Law
from zobench.law.adaptive import AdaptiveLaw, Past
from zobench.maps import CoefficientMap
from zobench.numbers import count, store
from zobench.plan import Plan
from zobench.random.keys import derive
from zobench.random.streams import Shape
from zobench.stencil import Stencil


@dataclass(frozen=True)
class OfLine(Estimator):
    """g = (1/n) sum_i y_i u_i of `line`, the u_i of another law at each step, `at(key, state)` its estimator.

    Raises:
        ValueError: `line` is no LineEstimator.
    """

    line: LineEstimator

    def __post_init__(self) -> None:
        if not isinstance(self.line, LineEstimator):
            raise ValueError(f"line is {self.line!r}: give a LineEstimator")

    @property
    def law(self) -> Law:
        """The law of the first step, without what later steps hold."""
        return self.line.law

    @property
    def stencil(self) -> Stencil:
        """That of `line`."""
        return self.line.stencil

    @property
    def epsilon(self) -> float:
        """That of `line`."""
        return self.line.epsilon

    @property
    def n(self) -> int:
        """That of `line`."""
        return self.line.n

    @property
    def map(self) -> CoefficientMap:
        """That of `line`."""
        return self.line.map

    @property
    def linear(self) -> bool:
        """Whether `line` is."""
        return self.line.linear

    @property
    def bounded(self) -> bool:
        """Whether `line` is."""
        return self.line.bounded

    @property
    def evaluations(self) -> int | None:
        """Those of `line`."""
        return self.line.evaluations

    @abstractmethod
    def at(self, key: int, state: Any) -> LineEstimator:
        """Return the estimator of the step of this key."""

    @abstractmethod
    def after(self, plan: Plan, losses: Tensor, state: Any) -> Any:
        """Return the state of the next step."""

    def ask(self, key: int, state: Any, batch: Shape = ()) -> Plan:
        """Return the plan of the state's step."""
        return self.at(key, state).ask(key, (), batch)

    def tell(self, plan: Plan, losses: Tensor, state: Any) -> Estimate:
        """Return the estimate of the state's step, and the state of the next one."""
        told = self.line.tell(plan, losses, ())
        assert isinstance(told, Estimate)
        return replace(told, state=self.after(plan, losses, state))


class Refresh(NamedTuple):
    """The number of the next step, and the key of the step that drew the part that is held."""

    step: int = 0
    key: int = 0


@dataclass(frozen=True)
class Refreshed(OfLine):
    """g = (1/n) sum_i y_i u_i of `line`, a part of u_i held for `every` steps: step k draws it anew where k is a
    multiple of `every`, from the step's own key, and the steps after it use that key again.

    The state is the step and that key: a run that is interrupted, and a step that is replayed, see the same part. A
    point and the step along its direction name one law, so that they cannot see two. Cost: that of `line`.

    Raises:
        ValueError: `line` is no LineEstimator, every is no whole number from 1, or no part of the law can be held.
    """

    every: int

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, every=count("every", self.every, "give the number of steps for which a part is held, from 1"))
        self.line.law.refreshed(0)  # which refuses laws without such a part

    def init(self) -> Refresh:
        """Return step 0, which draws the first part."""
        return Refresh()

    def at(self, key: int, state: Refresh) -> LineEstimator:
        """Return the estimator of a step, its law with the part that is held at it."""
        return replace(self.line, law=self.line.law.refreshed(derive(self._drawn_by(key, state), "refresh")))

    def after(self, plan: Plan, losses: Tensor, state: Refresh) -> Refresh:
        """Return the next step, and the key that its part was drawn from."""
        return Refresh(state.step + 1, self._drawn_by(plan.key, state))

    def _drawn_by(self, key: int, state: Refresh) -> int:
        return key if state.step % self.every == 0 else state.key


@dataclass(frozen=True)
class Adaptive(OfLine):
    """g = (1/n) sum_i y_i u_i of `line`, whose law learns from the scalars of the steps before: see `AdaptiveLaw`.

    The state is the step, and the key and the scalars of the step before it; what was learned is in the space. A step
    with a loss that is not finite teaches nothing. Batches of estimates are those of the state's step, and leave it.
    Cost: that of `line`, and one sweep over the law's buffers.

    Raises:
        ValueError: `line` is no LineEstimator, or its law learns nothing.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.line.law, AdaptiveLaw):
            raise ValueError(f"the law {self.line.law!r} does not learn from steps: give the line itself")

    def init(self) -> Past:
        """Return step 0, which has no past."""
        return Past()

    def at(self, key: int, state: Past) -> LineEstimator:
        """Return the estimator of a step, its law with the past."""
        law = self.line.law
        return replace(self.line, law=law.after(state) if isinstance(law, AdaptiveLaw) else law)

    def after(self, plan: Plan, losses: Tensor, state: Past) -> Past:
        """Return the next step, and what this one leaves to learn from."""
        law = self.line.law
        if plan.batch or not isinstance(law, AdaptiveLaw):
            return state
        slopes = self.n * weighted_sum(plan.weights, losses)
        left = law.remembered(slopes, losses, plan.offsets)
        finite = bool(left.isfinite().all())
        return Past(state.step + 1, plan.key, tuple(left.tolist()) if finite else ())
