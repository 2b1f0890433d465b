"""Which parameters step at which multiple of the learning rate, and which of them decay."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from zobench.layout import Segment
from zobench.numbers import real, store


class Factors(NamedTuple):
    """What a segment multiplies the scale of a step by, and its shrinking by weight decay."""

    rate: float = 1.0
    decay: float = 1.0


@dataclass(frozen=True)
class Groups:
    """Multipliers of the learning rate by the names of parameters, others having 1, and of weight decay, others having
    what `decays` says: a step is x <- (1 - p d shrink) x + p scale u, p and d the two multipliers.

    Raises:
        ValueError: a multiplier is negative or not finite.
    """

    multipliers: Mapping[str, float] = field(default_factory=dict, hash=False)
    decay_multipliers: Mapping[str, float] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        for field_name in ("multipliers", "decay_multipliers"):
            given: Mapping[str, float] = getattr(self, field_name)
            store(self, **{field_name: {name: _multiplier(name, value) for name, value in given.items()}})

    def of(self, segment: Segment) -> Factors:
        """Return the factors of a segment."""
        rate = float(self.multipliers.get(segment.name, 1.0))
        decay = self.decay_multipliers.get(segment.name)
        decay = float(decays(segment.name, len(segment.shape))) if decay is None else decay
        return Factors(rate, rate * decay)

    def require_known(self, names: Collection[str]) -> None:
        """Raise ValueError if a multiplier is of no parameter among these."""
        for name in (*self.multipliers, *self.decay_multipliers):
            if name not in names:
                raise ValueError(
                    f"the multiplier of {name!r}: no trainable parameter of that name (tied ones have "
                    f"their first name), which are {', '.join(sorted(names)[:3])}, ..."
                )


def _multiplier(name: str, value: float) -> float:
    return real(f"the multiplier of {name!r}", value, "give 0 or more", lambda multiplier: multiplier >= 0)


UNIFORM = Groups()


def decays(name: str, ndim: int) -> bool:
    """Return whether weight decay applies to a parameter by default: to matrices and tensors of higher order, and not
    to biases and norms. An anonymous vector (ndim 0, no shape known) decays.
    """
    return ndim == 0 or (ndim >= 2 and not any(word in name.lower() for word in ("bias", "norm")))
