"""Directions in one block of the parameters."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from zobench.law.by_tensor import ByTensor, PartlyHeld
from zobench.law.independent import Gaussian, Rademacher
from zobench.law.law import Direction, Law
from zobench.law.per_tensor import Scaled
from zobench.layout import CPU, Block, Layout, Segment
from zobench.naming import require_known
from zobench.random import streams
from zobench.random.keys import derive
from zobench.random.native import NativeStream
from zobench.random.streams import Shape

GAUSSIAN = Gaussian()
LAYER, TENSOR = "layer", "tensor"


def blocks_of(layout: Layout, by: str) -> dict[str, int]:
    """Return the number of the block of each segment: one block a tensor; or one a layer, which is told by the first
    number in its name ("model.layers.3"), or by the module where there is none ("lm_head").
    """
    names = {s.name: s.name if by == TENSOR else _layer(s.name) for s in layout.segments}
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names.values()))}
    return {segment: numbers[name] for segment, name in names.items()}


def _layer(name: str) -> str:
    parts = name.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    return ".".join(parts[:-1] if first is None else parts[: first + 1])


@dataclass(frozen=True)
class OneBlock(ByTensor):
    """u = v, of `law`, in one block of the parameters, and 0 elsewhere; block l has probability p_l, and a coefficient
    multiplies v / p_l, so that E[credit u^T] = I whatever the p_l are.

    Epsilon is the displacement along v, in the block alone. Second moment, f locally linear: sum_l c_l |g_l|^2 / p_l
    over blocks, c_l = c_d of `law` in the dimension of the block. No other block is drawn, so that a sweep over the
    others adds nothing.

    Raises:
        ValueError: `law` is neither Gaussian nor Rademacher.
        UnknownNameError: `by` is neither "layer" nor "tensor".
    """

    law: Gaussian | Rademacher = GAUSSIAN
    by: str = LAYER

    def __post_init__(self) -> None:
        if not isinstance(self.law, Gaussian | Rademacher):
            raise ValueError(f"law is {self.law!r}: give Gaussian() or Rademacher(), whose entries are independent")
        require_known(self.by, (LAYER, TENSOR), "kind of block:")

    @abstractmethod
    def drawn(self, key: int, index: int, count: int, batch: Shape) -> tuple[Tensor, Tensor]:
        """Return the numbers of the blocks of a direction, of `count`, and their probabilities, both (*batch)."""

    @property
    def credited(self) -> bool:
        """Whether directions are those that coefficients multiply, v / p_l."""
        return False

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a direction of `law` in the block that key and index draw."""
        numbers = blocks_of(layout, self.by)
        chosen, probabilities = self.drawn(key, index, max(numbers.values()) + 1, batch)
        weights = 1.0 / probabilities if self.credited else torch.ones_like(probabilities)
        factors = {name: weights * (chosen == number) for name, number in numbers.items()}
        return InBlock(self.law.direction(key, index, layout, batch), factors)

    def fourth_moments(self, layout: Layout, probabilities: Sequence[float]) -> dict[str, float]:
        """Return c_m of each tensor under the probabilities of the blocks: E[|credit|^2 (u . g)^2] = sum_m c_m |g_m|^2,
        f locally linear.
        """
        numbers, sizes = blocks_of(layout, self.by), [0] * len(probabilities)
        for segment in layout.segments:
            sizes[numbers[segment.name]] += segment.size
        return {name: self.law.fourth_moment(sizes[at]) / probabilities[at] for name, at in numbers.items()}


@dataclass(frozen=True, eq=False)
class InBlock(Scaled):
    """The entries of `draw` times the factor (*batch) of their segment: None where it is 0 for the only point."""

    def __call__(self, block: Block) -> Tensor | None:
        """Return the entries of a block."""
        return None if self._is_zero(block.segment) else super().__call__(block)

    def native(self, segment: Segment) -> NativeStream | None:
        """Return the segment's stream; None where the segment is in another block, or there are several points."""
        return None if self.factors[segment.name].ndim or self._is_zero(segment) else super().native(segment)

    def _is_zero(self, segment: Segment) -> bool:
        factor = self.factors[segment.name]
        return not factor.ndim and float(factor) == 0.0


@dataclass(frozen=True)
class Blocks(OneBlock, PartlyHeld):
    """A direction in one block of the parameters, each of the B blocks with probability 1 / B: see `OneBlock`. A
    coefficient multiplies B v, so that E[credit u^T] = I; second moment, f locally linear: B sum_l c_l |g_l|^2, (d + 2
    B) |grad f|^2 for Gaussians and blocks of one size.

    Under `Refreshed` all directions between two refreshes are in one block. Cost: a draw of one block alone. Source:
    block-wise ZO, Zhang et al. 2024, arXiv 2402.11592, which walks through all blocks in each step, 2 evaluations each;
    its code gives each block the same noise and leaves the embeddings out.
    """

    @property
    def credit(self) -> "BlocksCredit":
        """The law of B v."""
        return as_kind(BlocksCredit, self)

    def drawn(self, key: int, index: int, count: int, batch: Shape) -> tuple[Tensor, Tensor]:
        """Return blocks of equal probabilities."""
        seed = derive(key, index, "block") if self.refresh is None else derive(self.refresh, "block")
        chosen = streams.integers(seed, batch, count)
        return chosen, torch.full(batch, 1.0 / count, dtype=torch.float64, device=CPU)


@dataclass(frozen=True)
class BlocksCredit(Blocks):
    """u = B v in the block of Blocks: what its coefficients multiply."""

    @property
    def credited(self) -> bool:
        """True."""
        return True

    @property
    def credit(self) -> "BlocksCredit":
        """Itself."""
        return self


Of = TypeVar("Of", bound=Law)


def as_kind(kind: type[Of], law: Law) -> Of:
    """Return the law of another class with the same fields."""
    return kind(**{f.name: getattr(law, f.name) for f in fields(law) if f.init})
