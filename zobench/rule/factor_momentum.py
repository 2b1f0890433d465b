"""Heavy-ball momentum of one factor of a gradient of low rank."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from zobench.combination import Combination, Line, Term
from zobench.law.by_tensor import PartlyHeld
from zobench.law.factors import Coordinates
from zobench.layout import CPU, Segment
from zobench.numbers import store
from zobench.rule.rule import ScheduledRule
from zobench.rule.window import factor
from zobench.space.space import Space


class Cores(NamedTuple):
    """The number of the next step, a direction that has the frames of the cores, and these, in the layout's order; none
    before the first step.
    """

    step: int = 0
    line: Line | None = None
    averages: tuple[Tensor, ...] = ()

    def named(self, gradient: Combination) -> tuple[Combination, Line | None]:
        """Return a gradient and one of its directions; one without terms as 0 along the direction of the cores."""
        line = next((line for line, _ in gradient.lines), self.line)
        if gradient.terms or line is None:
            return gradient, line
        law, key, index = line
        return Combination((Term(law, key, torch.zeros(1, dtype=torch.float64, device=CPU), (index,)),)), line

    def goes_on(self, line: Line | None) -> bool:
        """Return whether a direction shares the part that its law holds with that of the cores."""
        if self.line is None or line is None:
            return True
        law = self.line[0]
        return law == line[0] and (not isinstance(law, PartlyHeld) or law.refresh is not None)

    def carried(self, space: Space, line: Line | None) -> "Carried":
        """Return the cores for a step along directions of this name."""
        names = [s.name for s in space.layout.segments]
        held = dict(zip(names, self.averages, strict=True)) if self.averages else {}
        law, key, index = self.line or (None, 0, 0)
        before = law and law.direction(key, index, space.layout, ())
        return Carried(held, getattr(before, "coordinates", None), self.goes_on(line))


class Carried(NamedTuple):
    """Cores by segment, what draws the frames that they are in, and whether these are those of the step."""

    held: dict[str, Tensor]
    frames: Callable[[Segment], Coordinates] | None
    same: bool

    def into(self, segment: Segment, g: Coordinates) -> Tensor | None:
        """Return the core of a segment in the frames of a gradient; None where nothing is held of it."""
        core = self.held.get(segment.name)
        if core is None or core.ndim != 2 or (self.same and core.shape == g.core.shape):
            return core
        before = self.frames(segment) if self.frames is not None else Coordinates(core)
        return before._replace(core=core).within(g)

    def average(self, segment: Segment, g: Coordinates, beta: float) -> Tensor:
        """Return beta times what is held and 1 - beta times the core of a gradient; that core where nothing is held."""
        before = self.into(segment, g)
        return g.core.clone() if before is None else torch.lerp(g.core, before, beta)


@dataclass(frozen=True)
class FactorMomentum(ScheduledRule):
    """N <- beta N + (1 - beta) c U, x <- (1 - lr_t wd) x - lr_t N V^T in a matrix, c U V^T its gradient and V held for
    several steps; elsewhere the same average of the gradient. The first gradient begins the average.

    Where V is drawn anew, N <- N V_old^T V_new / columns: the projection of N V_old^T on V_new, of which E|.|^2 is rank
    / columns of what was held, so that a refresh forgets nearly all. N is (rows, rank) numbers a matrix and one a
    weight elsewhere; under a law that holds no part one a weight. Memory keeps the key of V, and no V.

    Source: LOZO-M, Chen et al. 2024, arXiv 2410.07698, and its code.

    Raises:
        ValueError: as SGD; or beta is not in [0, 1).
    """

    at_most: ClassVar[bool] = True
    beta: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, beta=factor("beta", self.beta))

    @property
    def held(self) -> float:
        """1: a core is as large as its parameter, or smaller."""
        return 1.0

    def init(self, space: Space) -> Cores:
        """Return that nothing is held."""
        return Cores()

    def rate(self, memory: Cores) -> float:
        """Return the learning rate of the next step."""
        return self.lr_at(memory.step)

    def apply_(self, space: Space, gradient: Combination, memory: Cores) -> Cores:
        """Take one step."""
        lr, (gradient, line) = self.rate(memory), memory.named(gradient)
        carried, averages, framed = memory.carried(space, line), list[Tensor](), list[bool]()

        def average(segment: Segment, x: Tensor, g: Coordinates) -> Tensor:
            averages.append(carried.average(segment, g, self.beta))
            framed.append(g.framed)
            return averages[-1]

        space.update_whole_(gradient, average, -lr, lr * self.weight_decay, self.groups)
        return Cores(memory.step + 1, line if any(framed) else None, tuple(averages))

    def skip(self, memory: Cores) -> Cores:
        """Return the memory with the next step."""
        return memory._replace(step=memory.step + 1)
