"""SPSA with Spall's gain sequences, and halving at a plateau."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from zobench.estimator import Estimate, Estimator, LineEstimator, More, weighted_sum
from zobench.law import Law
from zobench.numbers import count, real, store
from zobench.plan import Plan
from zobench.random.keys import derive
from zobench.random.streams import Shape
from zobench.stencil import CentralStencil


class Calibrated(NamedTuple):
    """The step, and the factor of the gradient that calibration found; 0 before it."""

    step: int = 0
    scale: float = 0.0


@dataclass(frozen=True)
class SPSA(Estimator):
    """g_k = s/n sum_i [f(x + c_k u_i) - f(x - c_k u_i)] / (2 c_k) u_i, c_k = c / (k + 1)^gamma and c = `epsilon`:
    Spall's SPSA, whose learning rate is `Gains`, a_k = a / (A + k + 1)^alpha.

    s is 1; or with `calibrate` m, 1 over the mean |slope| of m directions that are looked along before the first step,
    so that under sign directions every entry moves by about a_0 in it: Spall's choice of a from the first losses. It is
    part of the state, and of no other run. Cost: 2 n loss evaluations, 2 m more in the first step. Source: Spall 1998,
    sections III.A and III.B; gamma 0.101 beside alpha 0.602.

    Raises:
        ValueError: as for LineEstimator; gamma is negative, or calibrate is no whole number from 0.
    """

    law: Law
    epsilon: float
    n: int = 1
    gamma: float = 0.101
    calibrate: int = 0

    def __post_init__(self) -> None:
        first = self._line(0, self.n)
        gamma = real(
            "gamma", self.gamma, "give the power with which epsilon falls, 0 or more", lambda power: power >= 0
        )
        calibrate = count("calibrate", self.calibrate, "give the number of directions, 0 for none", least=0)
        store(self, epsilon=first.epsilon, n=first.n, gamma=gamma, calibrate=calibrate)

    def epsilon_at(self, step: int) -> float:
        """Return c_k, k counted from 0."""
        return self.epsilon / float((step + 1) ** self.gamma)

    def _line(self, step: int, n: int) -> LineEstimator:
        epsilon = self.epsilon_at(step) if step else self.epsilon
        return LineEstimator(self.law, CentralStencil(), epsilon, n)

    @property
    def evaluations(self) -> int:
        """Those of every step but the first."""
        return 2 * self.n

    def init(self) -> Calibrated:
        """Return step 0; the factor is 1 where nothing is calibrated."""
        return Calibrated(0, 0.0 if self.calibrate else 1.0)

    def report(self, before: Calibrated, after: Calibrated) -> dict[str, float]:
        """Return the factor of the gradient, at the step that found it."""
        return {} if before.scale else {"scale": after.scale}

    def ask(self, key: int, state: Calibrated, batch: Shape = ()) -> Plan:
        """Return the directions of the calibration, or of the step."""
        if not state.scale:
            return self._line(0, self.calibrate).ask(derive(key, "calibration"), (), batch)
        return self._line(state.step, self.n).ask(key, (), batch)

    def tell(self, plan: Plan, losses: Tensor, state: Calibrated) -> Estimate | More:
        """Return the estimate and the next step; or ask for the step after the calibration."""
        if not state.scale:
            slope = float(weighted_sum(plan.weights, losses).abs().mean()) * self.calibrate
            return More(Calibrated(0, 1.0 / slope if 0 < slope < math.inf else 1.0))
        told = self._line(state.step, self.n).tell(plan, losses, ())
        return replace(told, gradient=told.gradient * state.scale, state=Calibrated(state.step + 1, state.scale))


class Plateau(NamedTuple):
    """The least mean loss since the last halving, the steps since, and the number of halvings."""

    best: float = math.inf
    waited: int = 0
    halvings: int = 0


@dataclass(frozen=True)
class Halving(Estimator):
    """f^h times the estimate of the line at f^h epsilon, h the number of times that the mean loss of the points did not
    fall below its least in `patience` steps, f = `factor`: rate and epsilon are halved at a plateau.

    A loss that is not finite counts as none that is lower. Cost: that of the line. Source: 1.5-SPSA (Chaubard,
    Kochenderfer and Re 2026), whose rate is its epsilon.

    Raises:
        ValueError: patience is no whole number from 1, factor is not in (0, 1), or the line is no LineEstimator.
    """

    line: LineEstimator
    patience: int = 10
    factor: float = 0.5

    def __post_init__(self) -> None:
        if not isinstance(self.line, LineEstimator):
            raise ValueError(f"line is {self.line!r}: give the LineEstimator whose epsilon is to be halved")
        patience = count("patience", self.patience, "give the number of steps without a lower loss, from 1")
        factor = real("factor", self.factor, "give a factor between 0 and 1", lambda f: 0 < f < 1)
        store(self, patience=patience, factor=factor)

    @property
    def perturbed_by(self) -> float | None:
        """The first epsilon."""
        return self.line.perturbed_by

    @property
    def evaluations(self) -> int | None:
        """Those of the line."""
        return self.line.evaluations

    def init(self) -> Plateau:
        """Return that no loss was seen."""
        return Plateau()

    def report(self, before: Plateau, after: Plateau) -> dict[str, int]:
        """Return the number of halvings, at a step that halves."""
        return {"halvings": after.halvings} if after.halvings > before.halvings else {}

    def at(self, state: Plateau) -> LineEstimator:
        """Return the line of a state."""
        return replace(self.line, epsilon=self.line.epsilon * self.factor**state.halvings)

    def ask(self, key: int, state: Plateau, batch: Shape = ()) -> Plan:
        """Return the plan of the line."""
        return self.at(state).ask(key, (), batch)

    def tell(self, plan: Plan, losses: Tensor, state: Plateau) -> Estimate:
        """Return the estimate, and what was seen."""
        told = self.at(state).tell(plan, losses, ())
        mean = float(plan.losses(losses).mean())
        if mean < state.best:
            after = state._replace(best=mean, waited=0)
        elif state.waited + 1 < self.patience:
            after = state._replace(waited=state.waited + 1)
        else:
            after = Plateau(halvings=state.halvings + 1)
        return replace(told, gradient=told.gradient * self.factor**state.halvings, state=after)
