"""The contract of a space."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from zobench.combination import Combination
from zobench.groups import UNIFORM, Groups
from zobench.layout import Block, Layout
from zobench.plan import CURRENT, Plan
from zobench.space.whole import WholeRule

TOLERATED_SHARE = 0.5
Direction = Callable[[Block, Tensor, Sequence[Tensor]], Tensor]
"""What an element-wise rule makes of a block's entries of x and of the gradients."""
Functions = Callable[..., Any] | Mapping[str, Callable[..., Any]]


class Space(ABC):
    """Parameters x, and the three things that are done to them: evaluate along lines, f(x + a u_i), step along a
    combination, x <- x + scale * sum_i c_i u_i, settle.

    Estimators, update rules and logs speak of keys and scalars; only a space turns them into perturbations.
    """

    layout: Layout

    def __init__(self) -> None:
        self.snapshots: dict[str, list[Tensor]] = {}

    @abstractmethod
    def losses(self, f: Functions, plan: Plan) -> Tensor:
        """Return the plan's answers, float64, shaped like plan.offsets: the losses of its points; where it asks for the
        slope, the loss at the base point and its derivative along each line. Costs plan.queries evaluations of f; a
        dictionary of losses by name is asked for that of plan.closure.

        Raises:
            ValueError: the plan asks for a loss or a snapshot that there is none of.
        """

    @abstractmethod
    def replay_(self, plan: Plan) -> None:
        """Leave the parameters as `losses` does, to the bit, and evaluate nothing: what a replay does in its place."""

    @abstractmethod
    def _copied(self) -> list[Tensor]:
        """A copy of the parameters as steps made them."""

    def _keep(self, plan: Plan) -> None:
        """Take the snapshot that a plan keeps."""
        if plan.keep != CURRENT:
            self.snapshots[plan.keep] = self._copied()

    def snapshot(self, name: str) -> list[Tensor]:
        """Return the parameters as they were when a plan kept them under this name.

        Raises:
            ValueError: none did.
        """
        if name not in self.snapshots:
            known = sorted(self.snapshots)
            raise ValueError(
                f"a plan is based on the snapshot {name!r}, but the snapshots kept are {known}: keep it first"
            )
        return self.snapshots[name]

    @abstractmethod
    def step_(
        self, combination: Combination, scale: float = 1.0, shrink: float = 0.0, groups: Groups = UNIFORM
    ) -> None:
        """Replace x by (1 - p d shrink) x + p scale * combination, p and d the factors that the groups give a segment.

        Raises:
            FloatingPointError: a coefficient is not finite; the parameters are left as they were before the plan.
        """

    @abstractmethod
    def update_(
        self,
        gradients: Sequence[Combination],
        direction: Direction,
        scale: float = 1.0,
        shrink: float = 0.0,
        groups: Groups = UNIFORM,
    ) -> None:
        """Replace x by (1 - p d shrink) x + p scale * direction(block, x, gradients), in one sweep over the blocks:
        what element-wise rules do. `direction` gets the entries of a block of x and of every gradient, float32
        (float64 for float64 parameters), and returns as many; blocks may come from several threads, each block once.

        Raises:
            FloatingPointError: as step_.
        """

    @abstractmethod
    def update_whole_(
        self,
        gradient: Combination,
        rule: WholeRule,
        scale: float = 1.0,
        shrink: float = 0.0,
        groups: Groups = UNIFORM,
    ) -> None:
        """Replace x by (1 - p d shrink) x + p scale * step, one whole parameter after the other: what rules on matrices
        do. `rule(segment, x, g)` gets x of a parameter in its shape, and the gradient g = L C R in it (`Coordinates`);
        it returns the core of the step L core R. Under a law that holds a part of its directions for several steps, and
        so for all of one, the frames L and R are that part; else C is the gradient itself. A matrix of low rank is
        never formed, any other is, one at a time.

        Raises:
            FloatingPointError: as step_.
            ValueError: the rule returns a core of another shape.
        """

    def zeros(self) -> tuple[Tensor, ...]:
        """Return a vector of zeros for each segment, in the dtype of its directions: what a rule may hold."""
        return tuple(torch.zeros(s.size, dtype=s.dtype, device=s.device) for s in self.layout.segments)

    def reading(self) -> AbstractContextManager[None]:
        """Return the context in which any forward reads the parameters as those of a plan do, and none is perturbed:
        evaluations happen in it.
        """
        self.settle_()
        return nullcontext()

    @abstractmethod
    def dense(self, combination: Combination) -> Tensor:
        """Return the combination as one float64 vector (*batch, dim): for small dimensions, tests and theory."""

    @abstractmethod
    def settle_(self) -> None:
        """Flush the pending step: after this the parameters are exactly what the steps made them, up to rounding."""

    @abstractmethod
    def unresolved_share(self, displacement: float) -> float:
        """Return the share of entries that a displacement of this size leaves unmoved in their own dtype."""


def require_resolved(space: Space, epsilon: float | None) -> None:
    """Raise ValueError if a displacement by epsilon is lost in the rounding of most parameters; None perturbs
    nothing.
    """
    if epsilon is None:
        return
    share = space.unresolved_share(epsilon)
    if share > TOLERATED_SHARE:
        raise ValueError(
            f"epsilon {epsilon:g} is below the resolution of the parameters: it leaves {share:.0%} of them unmoved; "
            "raise epsilon, or hold the parameters in a wider dtype"
        )


def require_finite(combination: Combination) -> None:
    """Raise FloatingPointError if a coefficient of the combination is NaN or infinite."""
    if not combination.finite:
        values = [term.coefficients.flatten().tolist()[:4] for term in combination.terms]
        raise FloatingPointError(
            f"a step along coefficients {values} would destroy the parameters, so they were left alone: a loss was not "
            "finite or overflowed; lower the learning rate or epsilon, or use a wider dtype"
        )
