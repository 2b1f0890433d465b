"""Directions that an averaged estimate of the Hessian turns and scales."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from zobench.law.adaptive import Past
from zobench.law.law import Direction, Kept, Law
from zobench.layout import CPU, Block, Layout
from zobench.numbers import count, real, store
from zobench.random.keys import derive
from zobench.random.streams import Shape

SECOND = "second"


@dataclass(frozen=True)
class InverseCurvature(Law):
    """u' = (H^2 + floor^2 I)^(-1/2) u, u of `law` and H the mean of `start` I and of every estimate H_k = (h_k / 2)
    (v_k u_k^T + u_k v_k^T): u_k and v_k are the directions of step k, h_k its estimate of v_k^T (Hessian) u_k.

    E H_k is the Hessian, as E u u^T = E v v^T = I. The matrix that divides is positive definite: its eigenvalues are
    (lambda^2 + floor^2)^(1/2), lambda those of H. Without `solves` the direction is u itself, at the same buffers.

    Memory: d^2 float64 numbers in the space and in its checkpoints; cost: O(d^3) a step. So d is at most `most`. A step
    that was not taken teaches nothing. Source: Spall 2000, "Adaptive stochastic approximation by the simultaneous
    perturbation method".

    Raises:
        ValueError: law is none whose unit is 1, or start, floor or most is not positive. When bound: d is above `most`.
    """

    law: Law
    start: float = 1.0
    floor: float = 1e-2
    most: int = 1000
    past: Past = field(default=Past(), repr=False, kw_only=True)
    solves: bool = field(default=False, repr=False, kw_only=True)
    matrix: Tensor | None = field(default=None, compare=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.law, Law) or self.law.unit(4) != 1.0:
            raise ValueError(f"law is {self.law!r}: give one whose unit is 1, such as rademacher or gaussian")
        told = {name: getattr(self, name) for name in ("start", "floor")}
        positive = {name: real(name, value, "give a positive number", lambda x: x > 0) for name, value in told.items()}
        store(self, **positive, most=count("most", self.most, "give the largest dimension, from 1"))

    @property
    def reads_weights(self) -> bool:
        """True: a space must bind it to H."""
        return True

    def after(self, past: Past, solves: bool = False) -> "InverseCurvature":
        """Return the law that has learned from this past; with `solves` the one whose directions H divides."""
        return replace(self, past=past, solves=solves, matrix=None)

    def bind(self, layout: Layout, weights: Callable[[Block], Tensor]) -> "InverseCurvature":
        """Return the law of a first step."""
        return self.recall(layout, weights, {})

    def recall(self, layout: Layout, weights: Callable[[Block], Tensor], kept: Kept) -> "InverseCurvature":
        """Return the law with H as it is after its past, which `kept` holds afterwards.

        Raises:
            ValueError: d is above `most`, or `kept` has no H of its step or of one before, or of another dimension.
        """
        self._require_small(layout.dim)
        if self.past.step == 0:
            first = self.start * torch.eye(layout.dim, dtype=torch.float64, device=CPU)
            kept[repr(self)] = [_number(0), _number(1), first]
        if repr(self) not in kept:
            raise ValueError(
                f"the space does not hold H at step {self.past.step}: go on in the space of the steps before"
            )
        step, taken, mean = kept[repr(self)]
        if len(mean) != layout.dim or int(step) > self.past.step:
            raise ValueError(
                f"the space holds H of {len(mean)} entries at step {int(step)}, but step {self.past.step} moves "
                f"{layout.dim}: go on in the space of the steps before"
            )
        if int(step) < self.past.step:
            if self.past.scalars:
                mean = torch.lerp(mean, self._estimated(layout), 1.0 / (1.0 + float(taken)))
                taken = taken + 1
            kept[repr(self)] = [_number(self.past.step), taken, mean]
        return replace(self, matrix=_divided(mean, self.floor) if self.solves else None)

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return u, or with `solves` what H makes of it.

        Raises:
            ValueError: H is to divide, but the law is not bound.
        """
        if not self.solves:
            return self.law.direction(key, index, layout, batch)
        if self.matrix is None:
            raise ValueError(f"{self!r} reads H of a space: draw from law.bind(layout, weights), as spaces do")
        turned = self._dense(key, index, layout, batch) @ self.matrix

        def draw(block: Block) -> Tensor:
            entries = turned[..., block.offset : block.offset + block.size]
            return entries.to(block.segment.device, block.segment.dtype)

        return draw

    def _estimated(self, layout: Layout) -> Tensor:
        """The mean of H_k over the directions of the step before."""
        total = torch.zeros((layout.dim, layout.dim), dtype=torch.float64, device=CPU)
        for index, curvature in enumerate(self.past.scalars):
            u = self._dense(self.past.key, index, layout, ())
            v = self._dense(derive(self.past.key, SECOND), index, layout, ())
            total += 0.5 * curvature * (torch.outer(v, u) + torch.outer(u, v))
        return total / len(self.past.scalars)

    def _dense(self, key: int, index: int, layout: Layout, batch: Shape) -> Tensor:
        draw = self.law.direction(key, index, layout, batch)
        parts = []
        for block in layout.blocks:
            u = draw(block)
            zeros = torch.zeros((*batch, block.size), dtype=torch.float64, device=CPU)
            parts.append(zeros if u is None else u.to(CPU, torch.float64))
        return torch.cat(parts, -1)

    def _require_small(self, dim: int) -> None:
        if dim > self.most:
            raise ValueError(
                f"H has d^2 numbers, and {dim:,} parameters are trained: {8 * dim**2 / 2**30:,.3g} GiB; it serves at "
                f"most {self.most:,} (most={self.most}): take a method without a Hessian, such as spall or hizoo"
            )


def _number(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int64, device=CPU)


def _divided(mean: Tensor, floor: float) -> Tensor:
    """(H^2 + floor^2 I)^(-1/2)."""
    values, vectors = torch.linalg.eigh(mean)
    inverse: Tensor = (vectors / (values.square() + floor**2).sqrt()) @ vectors.T
    return inverse
