"""One step of any estimator on any space: ask, evaluate, tell, until there is a gradient."""

from collections.abc import Callable
from typing import Any

from zobench.estimator import Estimator, State, Told
from zobench.space.space import Space
from zobench.streams import Shape


def query(space: Space, estimator: Estimator, f: Callable[..., Any], key: int, state: State, batch: Shape = ()) -> Told:
    """Return what the estimator makes of f around the space's point x: g = sum_i c_i u_i with coefficients c from the
    losses f(x + a u_i) it asks for.

    Cost: plan.queries loss evaluations a round; info["queries"] counts those of all rounds.

    A module space is left at the last point of the plan, unless this raises: step_ or settle_ brings it back.
    """
    queries = 0
    while True:
        plan = estimator.ask(key, state, batch)
        losses = space.losses(f, plan)
        try:
            told = estimator.tell(plan, losses, state)
        except BaseException:
            space.settle_()
            raise
        queries += plan.queries
        if told.gradient is not None:
            return told._replace(info={**told.info, "queries": queries})
        state = told.state
