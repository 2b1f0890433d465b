"""Recorded losses in place of forward passes: what a replay answers plans with."""

from collections.abc import Sequence

from torch import Tensor

from zobench import Plan, Space


class Recorded:
    """Answers the plans of one step by the losses that its record holds; the space, if there is one, walks as it did
    then.

    Raises:
        ValueError: a plan asks for more losses than are left; or, by `require_all_told`, some were not asked for.
    """

    def __init__(self, losses: Sequence[float], space: Space | None = None) -> None:
        self._left, self.space = list(losses), space

    def __call__(self, plan: Plan) -> Tensor:
        """Return the answers of a plan."""
        if len(self._left) < plan.distinct_count:
            raise ValueError(
                f"the estimator asks for {plan.distinct_count} more losses, but the record has {len(self._left)} left: "
                "the journal is of another estimator"
            )
        if self.space is not None:
            self.space.replay_(plan)
        answers, self._left = self._left[: plan.distinct_count], self._left[plan.distinct_count :]
        return plan.answers(answers)

    def require_all_told(self) -> None:
        """Raise ValueError if losses are left."""
        if self._left:
            raise ValueError(
                f"the record has {len(self._left)} losses that the estimator does not ask for: the journal is of "
                "another estimator"
            )
