"""The contract of a coefficient map."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from zobench.maps.scores import Scores, Slopes
from zobench.stencil import Stencil


class Scalars(NamedTuple):
    """The scalars of one step: the slope of each line, s_i = sum_k (w_k / e) l_ik, float64 (*batch, n), and the losses
    and offsets that it was made of, both (*batch, n, m).
    """

    slopes: Tensor
    losses: Tensor
    offsets: Tensor


@dataclass(frozen=True)
class CoefficientMap(ABC):
    """What a step makes of its n slopes: g = (1/n) sum_i y_i u_i, y = map(slopes). Frozen; permuting the lines permutes
    y. Its repr is part of the estimator's identity in rows.
    """

    @property
    def linear(self) -> bool:
        """Whether y is the slopes themselves, as theory's bias and variance take them to be."""
        return False

    @property
    def bounded(self) -> bool:
        """Whether y is finite for losses that are not: one wild loss then has a bounded influence on the step."""
        return False

    def require_fit(self, n: int, stencil: Stencil) -> None:
        """Check that the map has a meaning for n lines of this stencil.

        Raises:
            ValueError: it has none.
        """
        return None

    @abstractmethod
    def __call__(self, scalars: Scalars) -> Tensor:
        """Return y, float64 (*batch, n)."""

    def scores(self, n: int, slopes: Slopes) -> Scores | None:
        """Return the moments of y under normal slopes; None where they are not known."""
        return None


@dataclass(frozen=True)
class Identity(CoefficientMap):
    """y_i = s_i: the estimate is linear in the losses."""

    @property
    def linear(self) -> bool:
        """True."""
        return True

    def __call__(self, scalars: Scalars) -> Tensor:
        """Return the slopes."""
        return scalars.slopes

    def scores(self, n: int, slopes: Slopes) -> Scores:
        """E[y t] = scale, E[y^2] = scale^2 + shift^2 + shared^2."""
        square, rest = slopes.scale**2, slopes.shift**2 + slopes.shared**2
        return Scores(slopes.scale, square + rest, 3 * square + rest, square)


IDENTITY = Identity()
"""y_i = s_i, the map of every estimator that names none."""


def require_several(name: str, n: int, why: str) -> None:
    """Raise ValueError if a step of a map that compares lines has one line."""
    if n < 2:
        raise ValueError(f"n is {n}, but {name} {why}: give n of 2 or more")
