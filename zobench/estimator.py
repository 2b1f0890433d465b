"""Estimators: arithmetic on scalars that asks for losses on seeded lines and is told them.

An estimator never sees a parameter, a dtype or a device, so the same frozen object serves a polynomial and a language
model.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from zobench.combination import Combination, Term
from zobench.keys import derive
from zobench.law import Law
from zobench.plan import Plan
from zobench.stencil import Stencil
from zobench.streams import Shape

State = Any


class Told(NamedTuple):
    """What an estimator makes of losses: the gradient estimate, what its next step needs, and what an observer wants.

    `gradient` is None while the estimator needs another round of losses.
    """

    gradient: Combination | None
    state: State
    info: dict[str, Any]


class Estimator(ABC):
    """The contract of a gradient estimator; its repr is its identity in result rows."""

    def init(self) -> State:
        """Return the state before the first step."""
        return ()

    @abstractmethod
    def ask(self, key: int, state: State, batch: Shape = ()) -> Plan:
        """Return the points whose losses are wanted; `batch` independent estimates share the key."""

    @abstractmethod
    def tell(self, plan: Plan, losses: Tensor, state: State) -> Told:
        """Turn losses, shaped like plan.offsets, into a gradient estimate."""


@dataclass(frozen=True)
class LineEstimator(Estimator):
    """g = (1/n) sum_i [ sum_k (w_ik / epsilon) f(x + epsilon r_ik u_i) ] u_i, with nodes r and weights w of the stencil
    and u_i of the law.

    Unbiased to first order because E[u u^T] = I and m_1 = E sum_k w_k r_k = 1. Cost: n m loss evaluations, or n (m - 1)
    + 1 where the base point is a node. Averaging n directions divides the covariance by n. Source: Spall 1992; Nesterov
    and Spokoiny 2017.

    Raises:
        ValueError: epsilon is not positive and finite, or n is not a positive integer.
    """

    law: Law
    stencil: Stencil
    epsilon: float
    n: int = 1

    def __post_init__(self) -> None:
        if not (isinstance(self.epsilon, int | float) and math.isfinite(self.epsilon) and self.epsilon > 0):
            raise ValueError(f"epsilon is {self.epsilon!r}: give a positive displacement, such as 1e-3")
        if not isinstance(self.n, int) or self.n < 1:
            raise ValueError(f"n is {self.n!r}: give the number of directions a step, 1 or more")
        if not isinstance(self.law, Law) or not isinstance(self.stencil, Stencil):
            raise ValueError(f"a LineEstimator wants a Law and a Stencil, got {self.law!r} and {self.stencil!r}")

    def ask(self, key: int, state: State, batch: Shape = ()) -> Plan:
        """Return n lines with the stencil's nodes; the random nodes have a stream of their own."""
        nodes, weights = self.stencil.draw(derive(key, "stencil"), (*batch, self.n))
        return Plan(self.law, key, self.epsilon * nodes, weights / (self.n * self.epsilon))

    def tell(self, plan: Plan, losses: Tensor, state: State) -> Told:
        """Return sum_i c_i u_i with c_i the weighted sum of the losses on line i."""
        coefficients = (plan.weights * losses).sum(-1)
        gradient = Combination((Term(plan.law, plan.key, coefficients),))
        return Told(gradient, state, {"coefficients": coefficients, "losses": losses})
