"""The last few gradients, which are scalars and keys: what a rule replays instead of holding an average."""

from typing import NamedTuple

from zobench.combination import Combination
from zobench.numbers import real


class Window(NamedTuple):
    """The number of the next step, and the gradients of the steps before it, oldest first."""

    step: int = 0
    recent: tuple[Combination, ...] = ()

    def extended(self, gradient: Combination, size: int) -> "Window":
        """Return the window after a step with this gradient; `size` gradients stay.

        Raises:
            ValueError: a law reads the weights, so that its directions cannot be drawn again after a step.
        """
        for term in gradient.terms:
            if term.law.reads_weights:
                raise ValueError(
                    f"{term.law!r} reads the weights before each step, so that the directions of earlier steps cannot "
                    "be drawn again: give the rule without `window`"
                )
        return Window(self.step + 1, (*self.recent, gradient)[-size:])


def factor(name: str, value: float) -> float:
    """Return a decay factor.

    Raises:
        ValueError: it is not in [0, 1).
    """
    return real(name, value, "give a number from 0 to below 1", lambda beta: 0 <= beta < 1)
