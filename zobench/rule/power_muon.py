"""Steps that are orthogonalised in their strongest directions, by a power iteration that goes on from step to step."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from zobench.combination import Combination
from zobench.law.factors import Coordinates
from zobench.layout import Segment
from zobench.numbers import count, real, store
from zobench.random import streams
from zobench.random.keys import derive
from zobench.rule.factor_momentum import Cores
from zobench.rule.muon import VECTORS
from zobench.rule.rule import ScheduledRule
from zobench.rule.window import factor
from zobench.space.space import Space


class Powers(NamedTuple):
    """The averages, and the right bases of matrices by name."""

    cores: Cores = Cores()
    bases: dict[str, Tensor] = {}  # noqa: RUF012 - never changed


@dataclass(frozen=True)
class PowerMuon(ScheduledRule):
    """x <- (1 - lr_t wd) x - lr_t P U V^T, P M the averaged gradient of a matrix, M <- beta M + (1 - beta) S: V (n, k)
    is Q of M^T M times the V of the step before, one power iteration a step, and U is M V with columns of length 1. So
    U V^T tends to the polar factor of M in its k strongest directions, and leaves the others out.

    Where P is drawn anew, M <- P_new^T P_old M, the projection, and V begins at a random frame. The first gradient
    begins the average. Elsewhere x <- (1 - lr_t wd) x - lr_t `vectors` M.

    Holds M, one number a weight at most, where beta > 0, and V, k numbers a column. Source: ZO-MOPI 2026 and its code;
    its released command has beta = 0, so no momentum, and its projection of momentum, divided by the rows, is commented
    out there.

    Raises:
        ValueError: as SGD; or k is no whole number from 1, beta is not in [0, 1), or vectors is negative.
    """

    at_most: ClassVar[bool] = True
    k: int = 32
    beta: float = 0.9
    vectors: float = VECTORS

    def __post_init__(self) -> None:
        super().__post_init__()
        store(self, k=count("k", self.k, "give the number of orthogonalised directions, from 1"))
        advice = "give the multiple of lr at which biases and norms step, 0 or more"
        vectors = real("vectors", self.vectors, advice, lambda v: v >= 0)
        store(self, beta=factor("beta", self.beta), vectors=vectors)

    @property
    def held(self) -> float:
        """2, or 1 without momentum: neither M nor V is larger than the matrix."""
        return 2.0 if self.beta else 1.0

    def init(self, space: Space) -> Powers:
        """Return that nothing is held."""
        return Powers()

    def rate(self, memory: Powers) -> float:
        """Return the learning rate of the next step."""
        return self.lr_at(memory.cores.step)

    def apply_(self, space: Space, gradient: Combination, memory: Powers) -> Powers:
        """Take one step."""
        lr, cores = self.rate(memory), memory.cores
        gradient, line = cores.named(gradient)
        carried, goes_on, (_, key, _) = cores.carried(space, line), cores.goes_on(line), line or (None, 0, 0)
        averages, bases, framed = list[Tensor](), dict[str, Tensor](), list[bool]()

        def step(segment: Segment, x: Tensor, g: Coordinates) -> Tensor:
            average = carried.average(segment, g, self.beta)
            averages.append(average)
            framed.append(g.framed)
            if average.ndim != 2:
                return average * self.vectors
            before = memory.bases.get(segment.name) if goes_on else None
            left, bases[segment.name] = powered(average, self.k, before, derive(key, segment.name, "power"))
            return (left @ bases[segment.name].mT).to(average.dtype)

        space.update_whole_(gradient, step, -lr, lr * self.weight_decay, self.groups)
        held = Cores(cores.step + 1, line if any(framed) else None, tuple(averages) if self.beta else ())
        return Powers(held, bases)

    def skip(self, memory: Powers) -> Powers:
        """Return the memory with the next step."""
        return memory._replace(cores=memory.cores._replace(step=memory.cores.step + 1))


def powered(matrix: Tensor, k: int, before: Tensor | None, key: int) -> tuple[Tensor, Tensor]:
    """Return U (rows, k), M V with columns of length 1, and V (columns, k), the frame of M^T M times the one before, or
    times that of a key; k is at most the lesser side.
    """
    m, k = matrix.double(), min(k, *matrix.shape)
    shape = (m.shape[1], k)
    if before is None or before.shape != shape:
        before = torch.linalg.qr(streams.normal(key, shape, torch.float64, m.device))[0]
    # Products round by the order and the place of a matrix in memory: one that a file brought back has another.
    before = before.double().clone(memory_format=torch.contiguous_format)
    after = torch.linalg.qr(m.mT @ (m @ before))[0]
    return functional.normalize(m @ after, dim=0), after.contiguous()
