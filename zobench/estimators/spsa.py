"""SPSA with Spall's gain sequences."""

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
