"""One step of any estimator on any space: ask, evaluate, tell, until there is a gradient."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from torch import Tensor

from zobench.estimator import Estimate, Estimator, Round, State
from zobench.plan import Plan
from zobench.random.streams import Shape
from zobench.space.space import Functions, Space

ROUNDS = 1000


def query(space: Space, estimator: Estimator, f: Functions, key: int, state: State, batch: Shape = ()) -> Estimate:
    """Return the estimate that the estimator makes of f around the space's point x: g = sum_i c_i u_i with
    coefficients c from the losses f(x + a u_i) it asks for. Where it asks for several losses by name, f is a dictionary
    of them.

    Cost: plan.queries loss evaluations a round; `Estimate.queries` counts those of all rounds.

    A module space is left at the last point of the plan, unless this raises: step_ or settle_ brings it back.

    Raises:
        RuntimeError: the estimator asks for more after 1,000 rounds.
    """
    return converse(space, estimator, partial(space.losses, f), key, state, batch)


def converse(
    space: Space, estimator: Estimator, answer: Callable[[Plan], Tensor], key: int, state: State, batch: Shape = ()
) -> Estimate:
    """Return the estimate that the estimator makes from `answer`, which gives the answers of a plan: the loop
    that training, replay, optimizers and Monte Carlo share. Errors as for `query`, which answers by evaluating f.
    """
    rounds: list[Round] = []
    try:
        while len(rounds) < ROUNDS:
            plan = estimator.ask(key, state, batch)
            rounds.append(Round(plan, answer(plan)))
            result = estimator.tell(plan, rounds[-1].answers, state)
            if isinstance(result, Estimate):
                return replace(result, rounds=tuple(rounds))
            state = result.state
    except BaseException:
        with suppress(
            RuntimeError
        ):  # parameters may be half perturbed after an interrupt; the first error matters more
            space.settle_()
        raise
    space.settle_()
    raise RuntimeError(f"{estimator!r} asks for more losses after {ROUNDS} rounds: its `tell` never makes an Estimate")
