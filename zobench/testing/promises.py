"""What an estimator promises: checks hold it to that, and to no more."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from zobench.estimator import Estimator, LineEstimator
from zobench.law import Gaussian, Law, Sphere
from zobench.plan import Plan
from zobench.stencil import Stencil

NEGLIGIBLE = 1e-9
HIGHEST = 9


@dataclass(frozen=True)
class Promises:
    """The properties of an estimate g of grad f(x) that checks hold it to; what is None or False is measured only.

    Args:
        mean: m in E[g] = m grad f for linear f.
        quadratic: E[g] = m grad f for quadratic f too, as where directions have u ~ -u.
        order: the least power of epsilon in E[g] - m grad f; infinite where there is no bias.
        shift: g of f + c is g of f.
        linear: g of a f + b h is a g of f + b g of h, at the same points.
        rescaling: f(x / s) at s x with s epsilon has g / s.
        rotation: E (g . v)^2 on f = v . x depends on the length of v alone.
        second_moment: dimension -> c with E|g|^2 = c |grad f|^2 for linear f.
        directions: n directions divide the covariance by n; the estimator has a field n.
        evaluations: loss evaluations of an estimate.
    """

    mean: float | None = None
    quadratic: bool = False
    order: float | None = None
    shift: bool = False
    linear: bool = False
    rescaling: bool = False
    rotation: bool = False
    second_moment: Callable[[int], float] | None = None
    directions: bool = False
    evaluations: int | None = None

    @classmethod
    def of(cls, estimator: Estimator) -> "Promises":
        """Return what an estimator declares: by `linear` and `evaluations`, by the law and the weights of its plan, and
        a LineEstimator by its stencil. An estimator that is not linear in the losses declares no mean.
        """
        plan, evaluations = estimator.ask(0, estimator.init()), estimator.evaluations
        if not estimator.linear:
            return cls(evaluations=evaluations)
        stencil = estimator.stencil if isinstance(estimator, LineEstimator) else None
        factor = plan.law.second_moment
        first = 1.0 if stencil is None else stencil.moment(1)
        return cls(
            mean=None if factor is None else factor * first,
            quadratic=factor is not None,
            order=None if stencil is None or factor is None else _order(stencil),
            shift=_is_difference(plan),
            linear=True,
            rescaling=True,
            rotation=is_rotation_invariant(plan.law),
            directions=stencil is not None,
            evaluations=evaluations,
        )


def _is_difference(plan: Plan) -> bool:
    """Whether the weights of the losses on a line sum to 0."""
    weights = plan.losses(plan.weights)
    return float(weights.sum(-1).abs().max()) <= NEGLIGIBLE * float(plan.weights.abs().max())


def is_rotation_invariant(law: Law) -> bool:
    """Return whether Q u ~ u for orthogonal Q: of the laws here Gaussian, Sphere and Orthogonal; one of your own says
    so by an attribute `rotation_invariant`.
    """
    return bool(getattr(law, "rotation_invariant", isinstance(law, Gaussian | Sphere)))


def _order(stencil: Stencil) -> float:
    """J - 1 for the least odd j from 3 with m_j != 0."""
    odd = range(3, HIGHEST + 1, 2)
    return next((j - 1.0 for j in odd if abs(stencil.moment(j)) > NEGLIGIBLE), math.inf)
