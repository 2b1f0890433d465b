"""Plan: the question an estimator asks."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from zobench.combination import Combination, Line
from zobench.law import Law
from zobench.layout import CPU
from zobench.naming import require_known
from zobench.numbers import count, store

LOSSES, SLOPE = "losses", "slope"
PASSES_OF_A_SLOPE = 3
CURRENT = ""
"""The point where the parameters are, and the closure of the step's own minibatch."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Points x + offsets[..., i, k] * u_i on n lines, and the weight of each loss in the coefficient of its line:
    c_i = sum_k weights[..., i, k] f(x + offsets[..., i, k] * u_i).

    `offsets` and `weights` are float64 (*batch, n, m); weights carry 1 / (n epsilon). An offset of exactly 0 is the
    base point, which all lines share and which is evaluated once. u_i is direction `indices[i]` of (law, key), by
    default direction i; or, where `along` is given, the combination along[i], as a step along it would go.

    With asks="slope" a line is asked at the base point alone, for the loss and its derivative along u: m is 2, the
    offsets are 0, and one pass of forward-mode differentiation a line gives both answers. It counts as 3 evaluations:
    y = W x brings y' = W' x + W x' with it, three products in place of one.

    `closure` names the loss where there are several (another minibatch, the whole of the data); `base` names the
    snapshot that x is, where it is not the current point, and `keep` a snapshot that is taken of the current point
    before anything is evaluated. A snapshot holds a copy of the parameters in the space.

    Raises:
        UnknownNameError: it asks for neither losses nor the slope.
        ValueError: offsets and weights differ in shape or have no (n, m), the slope is asked for elsewhere, or
            `indices` or `along` is not one for each line.
    """

    law: Law
    key: int
    offsets: Tensor
    weights: Tensor
    asks: str = LOSSES
    indices: tuple[int, ...] | None = None
    along: tuple[Combination, ...] | None = None
    closure: str = CURRENT
    base: str = CURRENT
    keep: str = CURRENT

    def __post_init__(self) -> None:
        store(self, key=count("key", self.key, least=None))
        require_known(self.asks, (LOSSES, SLOPE), "question of a plan")
        if self.offsets.shape != self.weights.shape or self.offsets.ndim < 2:
            raise ValueError(
                f"a plan needs offsets and weights of one shape (*batch, n, m), got {tuple(self.offsets.shape)} "
                f"and {tuple(self.weights.shape)}"
            )
        if self.asks == SLOPE and (self.offsets.shape[-1] != 2 or bool(self.offsets.any())):
            raise ValueError("a plan that asks for the slope needs two nodes a line, both at offset 0")
        for name, given in (("indices", self.indices), ("along", self.along)):
            if given is not None and len(given) != self.offsets.shape[-2]:
                raise ValueError(f"{name} has {len(given)} entries, the plan {self.offsets.shape[-2]} lines")

    @property
    def batch(self) -> tuple[int, ...]:
        """The leading shape: empty for a model, large for Monte Carlo."""
        return tuple(self.offsets.shape[:-2])

    def line(self, i: int, dim: int) -> dict[Line, float | Tensor]:
        """Return by how much of each direction an offset of 1 moves along line i: unit(d) of one, or for a combination
        c_j / unit(d) of each.
        """
        if self.along is None:
            index = i if self.indices is None else self.indices[i]
            return {(self.law, self.key, index): self.law.unit(dim)}
        moved: dict[Line, float | Tensor] = {}
        for line, coefficients in self.along[i].lines:
            moved[line] = moved.get(line, 0.0) + coefficients / line[0].unit(dim)
        return moved

    def function(self, f: Callable[..., Any] | Mapping[str, Callable[..., Any]]) -> Callable[..., Any]:
        """Return the loss that the plan asks for: f itself, or of several that of `closure`.

        Raises:
            ValueError: there is none of that name.
        """
        named = f if isinstance(f, Mapping) else {CURRENT: f}
        if self.closure not in named:
            raise ValueError(
                f"the estimator asks for the loss {self.closure!r}, but f has the losses {sorted(named)}: give f as a "
                "dictionary of losses by name, where '' names the loss of the step's own minibatch"
            )
        return named[self.closure]

    @cached_property
    def is_base(self) -> tuple[tuple[bool, ...], ...]:
        """Which of the (n, m) nodes are the base point, in the whole batch."""
        is_zero = (self.offsets == 0).reshape(-1, *self.offsets.shape[-2:]).all(0)
        return tuple(tuple(row) for row in is_zero.tolist())

    @property
    def queries(self) -> int:
        """Loss evaluations that one element of the batch costs."""
        if self.asks == SLOPE:
            return PASSES_OF_A_SLOPE * self.offsets.shape[-2]
        flags = [flag for row in self.is_base for flag in row]
        return flags.count(False) + any(flags)

    @property
    def distinct_count(self) -> int:
        """Number of answers (n, m) that are evaluated, the shared base point counted once."""
        return len(self._places)

    def distinct(self, answers: Tensor) -> list[float]:
        """Return the answers (n, m) of a plan without batch, the loss of the shared base point once."""
        return [float(answers[place]) for place in self._places]

    def answers(self, distinct: list[float]) -> Tensor:
        """Return the answers (n, m) whose `distinct` ones these are.

        Raises:
            ValueError: their number is another one.
        """
        if len(distinct) != len(self._places):
            raise ValueError(f"the plan has {len(self._places)} distinct answers, not {len(distinct)}")
        filled = torch.empty(self.offsets.shape, dtype=torch.float64, device=CPU)
        if self.asks == LOSSES:
            shared = [value for place, value in zip(self._places, distinct, strict=True) if self._at_base(place)]
            filled.fill_(shared[0] if shared else 0.0)
        for place, value in zip(self._places, distinct, strict=True):
            filled[place] = value
        return filled

    def losses(self, answers: Tensor) -> Tensor:
        """Return the losses among the answers (*batch, n, m): all of them, or without the slopes."""
        return answers[..., :1] if self.asks == SLOPE else answers

    @cached_property
    def _places(self) -> list[tuple[int, int]]:
        """Where answers stand that are answers of their own."""
        n, m = self.offsets.shape[-2:]
        everywhere = [(i, k) for i in range(n) for k in range(m)]
        if self.asks == SLOPE:
            return everywhere
        apart = [place for place in everywhere if not self._at_base(place)]
        return [place for place in everywhere if self._at_base(place)][:1] + apart

    def _at_base(self, place: tuple[int, int]) -> bool:
        return self.is_base[place[0]][place[1]]
