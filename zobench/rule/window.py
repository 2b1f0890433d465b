"""The last few gradients, which are scalars and keys: what a rule replays instead of holding an average."""

from typing import NamedTuple

from zobench.combination import Combination


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


def require_window(window: int | None) -> None:
    """Raise ValueError unless `window` is None or a whole number from 1."""
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise ValueError(f"window is {window!r}: give the number of steps that are replayed, or None for a full buffer")


def require_factor(name: str, value: float) -> None:
    """Raise ValueError unless a decay factor is in [0, 1)."""
    if not (isinstance(value, int | float) and 0 <= value < 1):
        raise ValueError(f"{name} is {value!r}: give a number from 0 to below 1")
