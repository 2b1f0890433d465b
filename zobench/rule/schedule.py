"""Learning rates that change with the steps."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from zobench.naming import require_known
from zobench.numbers import count, real, store
from zobench.spelling import Spelled, spelled

NOT_NEGATIVE = "give 0 or a positive number"
Schedule = Callable[[int], float]
"""A learning rate lr_t by the step t, counted from 0."""

ALPHA = 0.602
LEAST = 1e-4  # the smallest scale of r's interval in KerZOO's code


@dataclass(frozen=True)
class Gains:
    """a_k = lr / (A + k + 1)^alpha, A = `stability`: the gain sequence of SPSA as a schedule, `SGD(Gains(0.1))`.

    lr is Spall's a. A is about a tenth of the steps; alpha 0.602 is the least with which SPSA is known to converge
    beside gamma 0.101, 1 the asymptotically best. Source: Spall 1998, section III.B.

    Raises:
        ValueError: lr, stability or alpha is negative or not finite.
    """

    lr: float
    stability: float = 100.0
    alpha: float = ALPHA

    def __post_init__(self) -> None:
        told = {name: getattr(self, name) for name in ("lr", "stability", "alpha")}
        store(self, **{name: real(name, value, NOT_NEGATIVE, lambda x: x >= 0) for name, value in told.items()})

    def __call__(self, step: int) -> float:
        """Return a_k of a step, counted from 0."""
        return self.lr / float((self.stability + step + 1) ** self.alpha)


SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda t: 1.0,
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: 0.5 * (1.0 + math.cos(math.pi * t)),
    "kerzoo": lambda t: _hidden(max(1.0 - t, LEAST)),
}
GAINS = "gains"


def schedule(name: str, lr: float, steps: int, warmup: int = 0) -> Schedule:
    """Return the schedule of a name: after a linear warm-up from lr_0 / warmup to lr_0, with p the share of the other
    steps that are done, lr_t = lr ("constant"), lr (1 - p) ("linear"), lr (1 + cos(pi p)) / 2 ("cosine") or
    lr (25 s^2 - 21 s^4) / 4 with s = max(1 - p, 1e-4) ("kerzoo"); or, with k the number of those steps, Spall's gains
    lr_t = lr / (A + k + 1)^alpha ("gains", "gains:alpha=1:stability=50"), by default with A a tenth of them and alpha
    0.602.

    "kerzoo" is E[r K] of KerZOO's kernel at C = 1 once r's interval has shrunk to [-s, s] under the kernel of [-1, 1]:
    the schedule that is hidden in its code. It rises to 1.86 lr at s = sqrt(25/42), a quarter of the way, then falls to
    0; in the mean a step moves as far as one of MeZO under it, see `kernels.shrunk`.

    Raises:
        UnknownNameError: no such schedule, or option of it.
        ValueError: lr, steps, warmup or an option is out of range.
    """
    spelling = spelled(name, (*SHAPES, GAINS))
    require_known(spelling.name, (*SHAPES, GAINS), "schedule")
    lr = real("lr", lr, NOT_NEGATIVE, lambda rate: rate >= 0)
    steps, warmup = count("steps", steps, least=None), count("warmup", warmup, least=None)
    if steps < 1 or not 0 <= warmup <= steps:
        raise ValueError(f"steps is {steps}, warmup {warmup}: give steps >= 1 and 0 <= warmup <= steps")
    rate = _after_warmup(spelling, lr, steps - warmup)
    return lambda step: rate(0) * (step + 1) / warmup if step < warmup else rate(step - warmup)


def _hidden(s: float) -> float:
    """E[r K], r ~ Uniform[-s, s], K = (15/4) r (5 - 7 r^2)."""
    return (25 * s**2 - 21 * s**4) / 4


def _after_warmup(spelling: Spelled, lr: float, steps: int) -> Schedule:
    name, options = spelling
    for option in options:
        require_known(option, ("alpha", "stability") if name == GAINS else (), f"option of the schedule {name}")
    if name == GAINS:
        return Gains(lr, **{"stability": steps / 10, **options})
    return lambda step: lr * SHAPES[name](min(step / max(steps, 1), 1.0))
