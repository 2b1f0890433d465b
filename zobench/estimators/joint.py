"""A joint oracle: one that is shown all candidates of a round at once and puts them in order."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.plan import Plan
from zobench.space.space import Space


class JointOracle:
    """Answers the plans of an estimator that uses only the order of losses: loss = rank. `render(*arguments)` is what f
    would be called with, and returns what is shown of the point that the space is at (a picture, a text, a score);
    `order(candidates)` returns their positions, the best first, or the positions of the best few: the others are equal.

    A person or a judge answers through it, in place of a loss:

    >>> import torch
    >>> from zobench import FlatSpace, methods
    >>> from zobench.query import converse
    >>> space, search = FlatSpace(torch.ones(3, dtype=torch.float64)), methods.make("zo-ranksgd")
    >>> order = lambda shown: sorted(range(len(shown)), key=lambda i: shown[i])
    >>> judge = JointOracle(space, lambda x: float(x.square().sum()), order)
    >>> converse(space, search, judge, 0, search.init()).queries
    20

    Raises:
        ValueError: an order names a candidate twice, or one that there is none of.
    """

    def __init__(self, space: Space, render: Callable[..., Any], order: Callable[[list[Any]], Sequence[int]]) -> None:
        self.space, self.render, self.order = space, render, order

    def __call__(self, plan: Plan) -> Tensor:
        """Return the rank of each point of the plan, float64 (n, m)."""
        shown: list[Any] = []

        def show(*arguments: Any) -> Any:
            shown.append(self.render(*arguments))
            number = float(len(shown) - 1)
            return arguments[0].new_full(arguments[0].shape[:-1], number) if arguments else number

        numbers = self.space.losses(show, plan).long()
        return self._ranks(shown)[numbers]

    def _ranks(self, shown: list[Any]) -> Tensor:
        order = [int(position) for position in self.order(list(shown))]
        if len({*order}) != len(order) or not {*order} <= {*range(len(shown))}:
            raise ValueError(
                f"the order of {len(shown)} candidates is {order}: give positions from 0, the best first, each once"
            )
        ranks = torch.full((len(shown),), float(len(order)), dtype=torch.float64, device=CPU)
        ranks[order] = torch.arange(len(order), dtype=torch.float64, device=CPU)
        return ranks
