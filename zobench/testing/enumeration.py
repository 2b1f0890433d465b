"""E[g] over every outcome of an estimate: directions, and where on their lines it looks.

Signs and signed axes are listed; for Gaussian directions and those on the circle a quadrature rule takes their place,
which is exact for polynomials, as an estimate that is linear in the losses is one in u. A mean needs the law of each
direction alone, so that an estimator with n of them is looked at with all n equal.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zobench.estimator import Estimator, LineEstimator
from zobench.law import Coordinate, Gaussian, Law, Orthogonal, Rademacher, Sphere
from zobench.layout import CPU
from zobench.plan import LOSSES, Plan
from zobench.query import converse
from zobench.random.streams import Shape
from zobench.space import FlatSpace
from zobench.testing.subject import Everywhere, Function, Subject

SIGNS, NORMALS = 10, 3
"""The largest dimensions in which signs are listed, and normals."""
NODES, ANGLES, DEGREE = 12, 64, 14
ROUNDING = 1e-14


class Exact(NamedTuple):
    """E[g] (d,), and a bound of what rounding did to each entry (d,)."""

    value: Tensor
    rounding: Tensor


class Listed(NamedTuple):
    """Directions (N, d) and their probabilities (N,)."""

    directions: Tensor
    probabilities: Tensor


class ListedSpace(FlatSpace):
    """A flat space whose directions, of whatever name, are those of a list, one for each element of the batch."""

    def __init__(self, x: Tensor, directions: Tensor) -> None:
        super().__init__(x)
        self.directions = directions

    def _direction(self, law: Law, key: int, index: int, batch: Shape) -> Tensor:
        return self.directions


def mean(subject: Subject, f: Function, x: Tensor) -> Exact | None:
    """Return E[g] of a linear Estimator, None where its outcomes cannot be listed."""
    estimator = subject.estimator
    if estimator is None or not estimator.linear or getattr(subject, "by_tensor", False):
        return None
    plan = estimator.ask(0, estimator.init())
    outcomes = listed(plan.law, x.shape[-1]) if plan.law.credit == plan.law else None
    if outcomes is None:
        return None
    lines = _quadrature(estimator, outcomes) or _as_asked(estimator, outcomes)
    return None if lines is None else _mean(estimator, f, x, lines)


def listed(law: Law, dim: int) -> Listed | None:
    """Return all directions of a law that this package draws, or a rule for them; None where there is none."""
    if type(law) is Rademacher and dim <= SIGNS:
        signs = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=dim)), dtype=torch.float64, device=CPU)
        return _equal(signs)
    if type(law) is Coordinate:
        axes = math.sqrt(dim) * torch.eye(dim, dtype=torch.float64, device=CPU)
        return _equal(torch.cat((axes, -axes)))
    if type(law) is Gaussian and dim <= NORMALS:
        return _normals(dim)
    if type(law) in (Sphere, Orthogonal) and dim == 2:
        angles = (torch.arange(ANGLES, dtype=torch.float64, device=CPU) + 0.25) * (2 * math.pi / ANGLES)
        return _equal(math.sqrt(2) * torch.stack((angles.cos(), angles.sin()), -1))
    return None


def _equal(directions: Tensor) -> Listed:
    return Listed(directions, torch.full((len(directions),), 1 / len(directions), dtype=torch.float64, device=CPU))


def _normals(dim: int) -> Listed:
    """Gauss and Hermite's rule in each variable."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    weights = weights / weights.sum()
    u = torch.tensor(list(itertools.product(nodes.tolist(), repeat=dim)), dtype=torch.float64, device=CPU)
    p = torch.tensor(list(itertools.product(weights.tolist(), repeat=dim)), dtype=torch.float64, device=CPU)
    return Listed(u, p.prod(-1))


class _Lines(NamedTuple):
    """The plan of all outcomes, their directions and probabilities."""

    plan: Plan
    directions: Tensor
    probabilities: Tensor


def _quadrature(estimator: Estimator, outcomes: Listed) -> _Lines | None:
    """The lines of a LineEstimator that asks as LineEstimator does, with its stencil's rule in place of draws."""
    if not isinstance(estimator, LineEstimator) or type(estimator).ask is not LineEstimator.ask:
        return None
    rule, n, size = estimator.stencil.quadrature(DEGREE), estimator.n, len(outcomes.directions)
    offsets, weights = (
        part[:, None, None].expand(-1, size, n, -1).flatten(0, 1) for part in (rule.nodes, rule.weights)
    )
    epsilon, asks = estimator.epsilon, estimator.stencil.asks
    plan = Plan(estimator.law, 0, epsilon * offsets, weights / (n * epsilon), asks)
    count = len(rule.nodes)
    probabilities = (rule.probabilities[:, None] * outcomes.probabilities).flatten()
    return _Lines(plan, outcomes.directions.repeat(count, 1), probabilities)


def _as_asked(estimator: Estimator, outcomes: Listed) -> _Lines | None:
    """The lines that the estimator asks for in a batch, where they are not random."""
    try:
        plans = [estimator.ask(key, estimator.init(), (len(outcomes.directions),)) for key in (1, 2)]
    except (ValueError, TypeError, RuntimeError):
        return None
    one, other = plans
    fixed = all(plan.batch == (len(outcomes.directions),) and _constant(plan) for plan in plans)
    same = fixed and torch.equal(one.offsets, other.offsets) and torch.equal(one.weights, other.weights)
    return _Lines(one, *outcomes) if same else None


def _constant(plan: Plan) -> bool:
    return all(bool((part == part[:1]).all()) for part in (plan.offsets, plan.weights))


def _mean(estimator: Estimator, f: Function, x: Tensor, lines: _Lines) -> Exact:
    space, sizes = ListedSpace(x.clone(), lines.directions), []

    class Asked(Estimator):
        def ask(self, key: int, state: Any, batch: Shape = ()) -> Plan:
            return lines.plan

        def tell(self, plan: Plan, losses: Tensor, state: Any) -> Any:
            sizes.append((plan.weights.abs() * losses.abs()).sum(-1).sum(-1))
            return estimator.tell(plan, losses, state)

    estimate = converse(
        space, Asked(), lambda plan: space.losses(Everywhere(f), plan), 0, estimator.init(), lines.plan.batch
    )
    rows = space.dense(estimate.gradient)
    value = lines.probabilities @ rows
    scale = 1.0 if lines.plan.asks == LOSSES else 10.0
    error = ROUNDING * scale * (lines.probabilities * sizes[0]) @ lines.directions.abs()
    return Exact(value, error + ROUNDING * (lines.probabilities @ rows.abs()) + 1e-300)
