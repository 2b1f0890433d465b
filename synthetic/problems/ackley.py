"""Ackley's function: many shallow minima around a kink."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from synthetic.problems.formula import Formula
from synthetic.problems.series import Point
from zobench.layout import CPU


@dataclass(frozen=True)
class Ackley(Formula):
    """20 (1 - exp(-|x| / (5 sqrt d))) + e - exp(mean_i cos(2 pi x_i)), on [-32.768, 32.768]^d.

    The least value is 0, at 0, where f has a kink: derivatives are known elsewhere, and the Taylor series at x along u
    reaches no further than |x| / |u|. No sum of powers is known beyond order 2. Source: Ackley 1987.

    Raises:
        ValueError: a derivative is asked for at 0.
    """

    dim: int = 16
    name: ClassVar[str] = "ackley"

    @property
    def centre(self) -> Tensor:
        """The minimizer, 0."""
        return torch.zeros(self.dim, dtype=torch.float64, device=CPU)

    @property
    def radius(self) -> float:
        """One unit along each axis."""
        return math.sqrt(self.dim)

    @property
    def minimum(self) -> float:
        """0."""
        return 0.0

    def require_smooth(self, x: Tensor) -> None:
        """Raise ValueError at the kink."""
        if bool((x == 0).all(-1).any()):
            raise ValueError(f"x = 0 in R^{self.dim} is the kink of Ackley's function: it has no derivative there")

    def formula(self, x: Point) -> Point:
        """Return f(x)."""
        bowl = (-0.2 * x.square().mean(-1).sqrt()).exp()
        waves = (2 * math.pi * x).cos().mean(-1).exp()
        return 20.0 - 20.0 * bowl + math.e - waves
