"""Estimators, rules and laws as somebody else would write them: what the contract must fit."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from zobench import (
    Combination,
    Estimate,
    Estimator,
    Gaussian,
    LineEstimator,
    More,
    Plan,
    Rademacher,
    Term,
    UpdateRule,
    derive,
    methods,
)
from zobench.groups import UNIFORM

MEZO = methods.make("mezo", epsilon=0.05, n=2)


def points(rows: list[list[float]]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


class Mean(NamedTuple):
    loss: float = 0.0
    steps: int = 0


@dataclass(frozen=True)
class MovingBaseline(Estimator):
    """[f(x + e u) - b] / e u, b the running mean of all losses seen: a state that depends on losses."""

    epsilon: float = 0.05

    def init(self):
        return Mean()

    def ask(self, key, state, batch=()):
        return Plan(Gaussian(), key, points([[self.epsilon]]), points([[1 / self.epsilon]]))

    def tell(self, plan, losses, state):
        coefficients = plan.weights[:, 0] * (losses[:, 0] - state.loss)
        steps = state.steps + 1
        mean = state.loss + (float(losses.mean()) - state.loss) / steps
        return Estimate(Combination((Term(plan.law, plan.key, coefficients),)), Mean(mean, steps))


@dataclass(frozen=True)
class Past:
    key: int
    coefficients: Tensor


@dataclass(frozen=True)
class TwoTerms(Estimator):
    """The central difference, and a half of the last one: a gradient of two terms, and a state with a tensor."""

    epsilon: float = 0.05
    line: LineEstimator = MEZO

    def init(self):
        return None

    def ask(self, key, state, batch=()):
        return self.line.ask(key, (), batch)

    def tell(self, plan, losses, state):
        gradient = self.line.tell(plan, losses, ()).gradient
        (term,) = gradient.terms
        if state is not None:
            gradient = gradient + Combination((Term(term.law, state.key, state.coefficients),)) * 0.5
        return Estimate(gradient, Past(term.key, term.coefficients))


class Searching(NamedTuple):
    combination: Combination | None = None
    best: float = 1.0


@dataclass(frozen=True)
class RankLineSearch(Estimator):
    """Weights by ranks of n losses, then a search along their sum: two rounds, the second along a combination."""

    epsilon: float = 0.05
    n: int = 4

    def init(self):
        return Searching()

    def ask(self, key, state, batch=()):
        if state.combination is None:
            offsets = torch.full((self.n, 1), self.epsilon, dtype=torch.float64)
            return Plan(Rademacher(), key, offsets, torch.ones_like(offsets))
        steps = points([[-0.01, -0.02, -0.04]])
        return Plan(Rademacher(), key, steps, torch.zeros_like(steps), along=(state.combination,))

    def tell(self, plan, losses, state):
        if state.combination is None:
            ranks = losses[:, 0].argsort().argsort().double()
            combination = Combination((Term(plan.law, plan.key, (ranks - ranks.mean()) / self.n),))
            return More(Searching(combination, state.best))
        best = 2.0 ** int(losses[0].argmin())
        return Estimate(state.combination * best, Searching(None, best))


class Considered(NamedTuple):
    gradient: Combination | None = None


@dataclass(frozen=True)
class Conservative(Estimator):
    """MeZO's step where it lowers the loss by more than staying does, else none: points along a combination."""

    lr: float = 0.01
    line: LineEstimator = MEZO

    def init(self):
        return Considered()

    def ask(self, key, state, batch=()):
        if state.gradient is None:
            return self.line.ask(key, (), batch)
        offsets = points([[0.0, -self.lr]])
        return Plan(self.line.law, key, offsets, torch.zeros_like(offsets), along=(state.gradient,))

    def tell(self, plan, losses, state):
        if state.gradient is None:
            return More(Considered(self.line.tell(plan, losses, ()).gradient))
        stay, go = losses[0].tolist()
        return Estimate(state.gradient if go < stay else Combination(), Considered())


class Variance(NamedTuple):
    step: int = 0
    round: int = 0
    anchor: Combination = Combination()
    found: Combination = Combination()


@dataclass(frozen=True)
class SVRG(Estimator):
    """Every 3 steps a snapshot and the estimate of the whole loss there; each step g(x) - g(snapshot) + anchor."""

    every: int = 3
    line: LineEstimator = MEZO

    def init(self):
        return Variance()

    def ask(self, key, state, batch=()):
        plan = self.line.ask(key, (), batch)
        if state.step % self.every == 0 and state.round == 0:
            return replace(self.line.ask(derive(key, "anchor"), (), batch), closure="whole", keep="anchor")
        return replace(plan, base="anchor") if state.round == 2 else plan

    def tell(self, plan, losses, state):
        gradient = self.line.tell(plan, losses, ()).gradient
        if plan.keep:
            return More(state._replace(round=1, anchor=gradient))
        if state.round != 2:
            return More(state._replace(round=2, found=gradient))
        total = state.found - gradient + state.anchor
        return Estimate(total, Variance(state.step + 1, 0, state.anchor))


@dataclass(frozen=True)
class Bent(LineEstimator):
    """A LineEstimator that is not linear in the losses: theory must not speak of it."""

    def tell(self, plan, losses, state):
        told = super().tell(plan, losses, state)
        return replace(told, gradient=told.gradient * 2.0)


@dataclass(frozen=True)
class Sign(UpdateRule):
    """x <- x - lr sign(g): an element-wise rule of somebody else's, whose memory counts."""

    lr: float = 0.01

    def init(self, space):
        return 0

    def rate(self, memory):
        return self.lr

    def apply_(self, space, gradient, memory):
        space.update_((gradient,), lambda block, x, g: g[0].sign(), -self.lr, 0.0, UNIFORM)
        return memory + 1

    def skip(self, memory):
        return memory + 1
