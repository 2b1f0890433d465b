"""Learning rates that change with the steps."""

import math
from collections.abc import Callable

from zobench.naming import require_known
from zobench.numbers import count, real

NOT_NEGATIVE = "give 0 or a positive number"
Schedule = Callable[[int], float]
"""A learning rate lr_t by the step t, counted from 0."""


def schedule(name: str, lr: float, steps: int, warmup: int = 0) -> Schedule:
    """Return the schedule of a name: after a linear warm-up from lr / warmup to lr, with p the share of the other steps
    that are done, lr_t = lr ("constant"), lr (1 - p) ("linear") or lr (1 + cos(pi p)) / 2 ("cosine").

    Raises:
        UnknownNameError: no such schedule.
        ValueError: lr, steps or warmup is out of range.
    """
    shapes: dict[str, Callable[[float], float]] = {
        "constant": lambda t: 1.0,
        "linear": lambda t: 1.0 - t,
        "cosine": lambda t: 0.5 * (1.0 + math.cos(math.pi * t)),
    }
    require_known(name, shapes, "schedule")
    lr = real("lr", lr, NOT_NEGATIVE, lambda rate: rate >= 0)
    steps, warmup = count("steps", steps, least=None), count("warmup", warmup, least=None)
    if steps < 1 or not 0 <= warmup <= steps:
        raise ValueError(f"steps is {steps}, warmup {warmup}: give steps >= 1 and 0 <= warmup <= steps")

    def rate(step: int) -> float:
        if step < warmup:
            return lr * (step + 1) / warmup
        return lr * shapes[name](min((step - warmup) / max(steps - warmup, 1), 1.0))

    return rate
