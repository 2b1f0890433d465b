"""What is checked, from outside: a function goes in, an estimate of its gradient comes out."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.random.keys import derive
from zobench.testing.check import Level
from zobench.testing.promises import Promises

Function = Callable[[Tensor], Tensor]


class Counted:
    """f, and the points (d,) at which it was evaluated, in order."""

    def __init__(self, f: Function) -> None:
        self.f = f
        self.points: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x)."""
        self.points.extend(x.detach().clone().reshape(-1, x.shape[-1]).unbind())
        return self.f(x)


class Everywhere(Mapping[str, Function]):
    """The same loss under every name that a plan may ask for."""

    def __init__(self, f: Function) -> None:
        self.f = f

    def __getitem__(self, name: str) -> Function:
        return self.f

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(("",))

    def __len__(self) -> int:
        return 1


class Subject(ABC):
    """An estimator that checks ask for estimates of grad f(x) by key.

    `epsilon` is the displacement that it was made with, None where it has none; `least_dim` the smallest dimension that
    it works in; `batches` whether it makes many estimates at once, so that samples are cheap.
    """

    name: str
    promises: Promises
    epsilon: float | None
    least_dim: int = 1
    batches: bool = False

    @abstractmethod
    def at(self, epsilon: float) -> "Subject":
        """Return the same with another epsilon."""

    @abstractmethod
    def with_directions(self, n: int) -> "Subject | None":
        """Return the same with n directions; None where their number is no option."""

    @abstractmethod
    def estimate(self, f: Function, x: Tensor, key: int) -> Tensor:
        """Return one estimate, float64 (d,)."""

    def samples(self, f: Function, x: Tensor, key: int, count: int) -> Tensor:
        """Return independent estimates, float64 (count, d): by default one key each."""
        return torch.stack([self.estimate(f, x, derive(key, i)) for i in range(count)])

    def count(self, level: Level) -> int:
        """Return how many samples a check takes: of estimates that come one by one fewer where a mean is not promised,
        and fewer where each has many evaluations.
        """
        if self.batches:
            return level.samples
        measured = 1 if self.promises.mean is not None else 4
        return max(level.single // (measured * self.weight), level.single // 10)

    @cached_property
    def weight(self) -> int:
        """The evaluations of an estimate, in dozens."""
        x = torch.linspace(0.5, 1.0, max(2, self.least_dim), dtype=torch.float64, device=CPU)
        return -(-len(self.points(lambda y: y.double().sin().sum(-1), x, 0)) // 12) or 1

    def points(self, f: Function, x: Tensor, key: int) -> list[Tensor]:
        """Return the points at which one estimate evaluates f."""
        counted = Counted(f)
        self.estimate(counted, x, key)
        return counted.points

    @property
    def estimator(self) -> Any:
        """The Estimator, None where there is none."""
        return None

    @property
    def n(self) -> int | None:
        """The number of directions, None where it is no option."""
        directions = getattr(self.estimator, "n", None)
        return directions if isinstance(directions, int) else None
