"""Estimators: arithmetic on scalars that asks for losses on seeded lines and is told them.

An estimator never sees a parameter, a dtype or a device, so the same frozen object serves a polynomial and a language
model.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zobench.combination import Combination, Term
from zobench.kernels import PolynomialKernel, rescaled, shrunk
from zobench.law import Law, PerTensor
from zobench.maps import IDENTITY, CoefficientMap, Scalars
from zobench.numbers import count, flag, real, store
from zobench.plan import LOSSES, Plan
from zobench.random.keys import derive
from zobench.random.streams import Shape
from zobench.stencil import CentralStencil, KernelStencil, Stencil

State = Any


class Round(NamedTuple):
    """A plan and its answers f(x + offsets[..., i, k] u_i), float64 (*batch, n, m)."""

    plan: Plan
    answers: Tensor


@dataclass(frozen=True, eq=False)
class Estimate:
    """What an estimator makes of losses: the estimate g = sum_i c_i u_i, and the state its next step begins with.

    `rounds` are the plans that were asked and their answers, which `query` adds.
    """

    gradient: Combination
    state: State
    rounds: tuple[Round, ...] = ()

    @property
    def losses(self) -> Tensor:
        """The losses of the last round, without slopes, float64 (*batch, n, m)."""
        plan, answers = self.rounds[-1]
        return plan.losses(answers)

    @property
    def queries(self) -> int:
        """Loss evaluations of all rounds, for one element of the batch."""
        return sum(plan.queries for plan, _ in self.rounds)


@dataclass(frozen=True, eq=False)
class More:
    """What an estimator makes of losses that do not suffice: the state with which it asks for the next round."""

    state: State


class Estimator(ABC):
    """The contract of a gradient estimator g = sum_i c_i u_i: it asks for points on seeded lines, is told their losses,
    and answers with scalars c_i. It sees no parameter. Its repr is its identity in result rows.

    The state may depend on losses: a dataclass or named tuple of numbers, texts, None, tensors and tuples of such, so
    that every file of a run can keep it (`zobench.state`).
    """

    @property
    def perturbed_by(self) -> float | None:
        """The epsilon that parameters must resolve; None where nothing is perturbed, or as far as it is chosen."""
        return getattr(self, "epsilon", None)

    @property
    def linear(self) -> bool:
        """Whether the coefficients are the plan's weights times the losses, as theory takes them to be."""
        return False

    @property
    def bounded(self) -> bool:
        """Whether the estimate is finite for losses that are not, so that training takes the step all the same."""
        return False

    @property
    def evaluations(self) -> int | None:
        """Loss evaluations of a step, all rounds counted, by which a budget is planned; None where nothing is declared,
        as `zobench.evaluations` then tries. To be declared where steps differ: by an average, or a bound.
        """
        return None

    def init(self) -> State:
        """Return the state before the first step."""
        return ()

    def report(self, before: State, after: State) -> dict[str, Any]:
        """Return what a row says of a step that began and ended in these states, as JSON holds it; by default {}."""
        return {}

    @abstractmethod
    def ask(self, key: int, state: State, batch: Shape = ()) -> Plan:
        """Return the points whose losses are wanted; `batch` independent estimates share the key."""

    @abstractmethod
    def tell(self, plan: Plan, losses: Tensor, state: State) -> Estimate | More:
        """Turn the plan's answers, losses shaped like plan.offsets, into a gradient estimate, or ask for more."""


@dataclass(frozen=True, repr=False)
class LineEstimator(Estimator):
    """g = (1/n) sum_i y_i u_i with y = map(s) and slopes s_i = sum_k (w_ik / epsilon) f(x + epsilon r_ik u_i): nodes r
    and weights w of the stencil, u_i of the law.

    Under the identity map unbiased to first order because E[u u^T] = I and m_1 = E sum_k w_k r_k = 1, and averaging n
    directions divides the covariance by n. Cost: n m loss evaluations, or n (m - 1) + 1 where the base point is a node.
    Source: Spall 1992; Nesterov and Spokoiny 2017.

    Raises:
        ValueError: epsilon is not positive and finite, n is not a positive integer, or the map has no meaning for n
            lines of this stencil.
    """

    law: Law
    stencil: Stencil
    epsilon: float
    n: int = 1
    map: CoefficientMap = IDENTITY

    def __post_init__(self) -> None:
        epsilon = real("epsilon", self.epsilon, "give a positive displacement, such as 1e-3", lambda e: e > 0)
        n = count("n", self.n, "give the number of directions a step, 1 or more")
        store(self, epsilon=epsilon, n=n)
        if not isinstance(self.law, Law) or not isinstance(self.stencil, Stencil):
            raise ValueError(f"a LineEstimator needs a Law and a Stencil, got {self.law!r} and {self.stencil!r}")
        if self.stencil.asks != LOSSES and self.epsilon != 1:
            raise ValueError(
                f"epsilon is {self.epsilon!r}, but {self.stencil!r} has no epsilon: give a ForwardGradient"
            )
        if not isinstance(self.map, CoefficientMap):
            raise ValueError(f"map is {self.map!r}: give one of zobench.maps, such as Sign()")
        self.map.require_fit(n, self.stencil)

    def __repr__(self) -> str:
        shown = [field.name for field in fields(self) if field.repr and (field.name != "map" or not self.map.linear)]
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    def ask(self, key: int, state: State, batch: Shape = ()) -> Plan:
        """Return n lines with the stencil's nodes; the random nodes have a stream of their own."""
        nodes, weights = self.stencil.draw(derive(key, "stencil"), (*batch, self.n))
        return Plan(self.law, key, self.epsilon * nodes, weights / (self.n * self.epsilon), self.stencil.asks)

    def tell(self, plan: Plan, losses: Tensor, state: State) -> Estimate:
        """Return (1/n) sum_i y_i u_i with y the map of the weighted sums of the losses, u_i of the law's credit."""
        if self.map.bounded:
            losses = torch.where(losses.isnan(), torch.inf, losses)
        coefficients = weighted_sum(plan.weights, losses)
        if not self.map.linear:
            coefficients = self.map(Scalars(coefficients * self.n, losses, plan.offsets)) / self.n
        return Estimate(Combination((Term(plan.law.credit, plan.key, coefficients, plan.indices),)), state)

    @property
    def evaluations(self) -> int | None:
        """Those of the one round that `tell` above needs."""
        return self.ask(0, ()).queries if type(self).tell is LineEstimator.tell else None

    @property
    def linear(self) -> bool:
        """Whether the map is and `ask` and `tell` are those above; a subclass with others that says True vouches for
        itself.
        """
        own = type(self)
        return self.map.linear and own.ask is LineEstimator.ask and own.tell is LineEstimator.tell

    @property
    def bounded(self) -> bool:
        """Whether the map is."""
        return self.map.bounded


def weighted_sum(weights: Tensor, losses: Tensor) -> Tensor:
    """Return sum_k w_k l_k over the last dimension, term by term, so that every machine rounds alike."""
    products = (weights * losses).unbind(-1)
    total = products[0]
    for product in products[1:]:
        total = total + product
    return total


@dataclass(frozen=True)
class Shrinking(Estimator):
    """A kernel whose interval shrinks with the steps: at step k, r ~ Uniform[-s, s] with s = max(1 - k / steps, least).

    The state is the step. Where `unscaled`, the kernel stays that of [-1, 1], as in a port of KerZOO's code: a hidden
    schedule of the learning rate and a bias of order e^2 again, see `kernels.shrunk`; otherwise it is rescaled with the
    interval, which is epsilon shrinking to s epsilon. With `per_tensor` each segment has an r of its own, see
    `PerTensor`. Cost: 2 n loss evaluations.

    Raises:
        ValueError: the kernel is no polynomial one, steps is not a positive integer, least is not in (0, 1], or as for
            LineEstimator.
    """

    law: Law
    kernel: PolynomialKernel
    epsilon: float
    n: int = 1
    steps: int = 4000
    least: float = 1e-4
    unscaled: bool = True
    per_tensor: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.kernel, PolynomialKernel):
            raise ValueError(f"kernel is {self.kernel!r}: give a polynomial one, such as legendre(3)")
        least = real("least", self.least, "give the smallest scale of the interval, in (0, 1]", lambda s: 0 < s <= 1)
        steps = count("steps", self.steps, "give the number of steps after which the interval is gone")
        flags = {name: flag(name, getattr(self, name)) for name in ("unscaled", "per_tensor")}
        store(self, steps=steps, least=least, **flags)
        first = self.at(0)
        store(self, epsilon=first.epsilon, n=first.n)

    def init(self) -> int:
        """Return step 0."""
        return 0

    def scale(self, step: int) -> float:
        """Return s at this step, counted from 0."""
        return max(1.0 - step / self.steps, self.least)

    def at(self, step: int) -> LineEstimator:
        """Return the estimator of one step: what theory is asked about."""
        kernel = (shrunk if self.unscaled else rescaled)(self.kernel, self.scale(step))
        if self.per_tensor:
            return LineEstimator(PerTensor(kernel, self.law), CentralStencil(), self.epsilon, self.n)
        return LineEstimator(self.law, KernelStencil(kernel), self.epsilon, self.n)

    def ask(self, key: int, state: int, batch: Shape = ()) -> Plan:
        """Return the plan of the state's step."""
        return self.at(state).ask(key, (), batch)

    def tell(self, plan: Plan, losses: Tensor, state: int) -> Estimate:
        """Return the estimate of the state's step, and the next step."""
        return replace(self.at(state).tell(plan, losses, ()), state=state + 1)
