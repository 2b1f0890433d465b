"""What a step costs, known before a run: all rounds of it."""

import torch

from zobench.estimator import Estimator
from zobench.layout import CPU
from zobench.numbers import count
from zobench.plan import Plan
from zobench.query import converse
from zobench.random import streams
from zobench.random.keys import derive
from zobench.space.flat import FlatSpace

TRIED = 8


def evaluations_a_step(estimator: Estimator) -> int:
    """Return the loss evaluations of a step, those of all its rounds: what the estimator declares as its `evaluations`,
    or else what 8 steps on made-up losses, z ~ N(0, 1), took. Costs no evaluation.

    Raises:
        ValueError: the steps took different numbers, by their losses or by their place, and none is declared.
        RuntimeError: a step asks for more after 1,000 rounds.
    """
    declared = estimator.evaluations
    counts = _tried(estimator) if declared is None else [declared]
    if len({*counts}) > 1:
        raise ValueError(
            f"a step of {estimator!r} takes {min(counts)} to {max(counts)} loss evaluations, by its losses or its "
            "point, so that a budget fixes no number of steps: let its `evaluations` return the number to count"
        )
    return count("evaluations", counts[0], f"a step of {estimator!r} must evaluate the loss")


def _tried(estimator: Estimator) -> list[int]:
    """The evaluations of each of the first steps, on losses that nothing ties to the points."""
    space, state, counts = FlatSpace(torch.zeros(1, dtype=torch.float64, device=CPU)), estimator.init(), []
    for step in range(TRIED):
        rounds: list[Plan] = []

        def answer(plan: Plan, step: int = step, rounds: list[Plan] = rounds) -> torch.Tensor:
            rounds.append(plan)
            key = derive("evaluations of a step", step, len(rounds))
            return streams.normal(key, tuple(plan.offsets.shape), torch.float64, CPU)

        estimate = converse(space, estimator, answer, derive("tried", step), state)
        counts.append(estimate.queries)
        state = estimate.state
    return counts
