"""Directions of length sqrt(d): independent, and orthogonal within a step."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zobench.law.independent import Derived, Gaussian
from zobench.law.law import DenseDirection, Direction, Isotropic, require_room
from zobench.layout import CPU, Block, Layout, Segment
from zobench.random.streams import Shape


@dataclass(frozen=True)
class Sphere(Isotropic):
    """Uniform on the sphere of radius sqrt(d); c_d = d. Looks over the parameters once more, for the norm."""

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return a Gaussian direction scaled to norm sqrt(d)."""
        gaussian = Gaussian().direction(key, index, layout, batch)
        if len(layout.blocks) == 1:
            draw = gaussian(layout.blocks[0])
            once = _scaled(draw, _norm([draw]), layout.dim)
            return lambda block: once
        norm = _norm(gaussian(block) for block in layout.blocks)
        return OnSphere(gaussian, norm, layout.dim)

    def fourth_moment(self, dim: int) -> float:
        """Return d."""
        return float(dim)


@dataclass(frozen=True, eq=False)
class OnSphere(Derived):
    """sqrt(d) / norm times a Gaussian direction, norm that of all its blocks."""

    norm: Tensor
    dim: int

    def __call__(self, block: Block) -> Tensor:
        """Return the entries of a block."""
        return _scaled(self.draw(block), self.norm, self.dim)

    def declared(self, segment: Segment) -> Mapping[str, Any]:
        """Return the scale."""
        return {"scale": math.sqrt(self.dim) / float(self.norm)}


@dataclass(frozen=True)
class Orthogonal(Sphere):
    """sqrt(d) times the columns of a Haar random frame: each direction is uniform on the sphere of radius sqrt(d), and
    those of one step are orthogonal. c_d = d.

    Gram and Schmidt on independent Gaussians g_0 ... g_i: direction i costs i + 1 draws of each block, and one more
    look over the parameters for their scalar products. Direction 0 is that of Sphere.

    With n = d and exact derivatives along the lines the average of the d estimates is the gradient itself. Source:
    Kozak et al. 2023 (random orthogonal directions).

    Raises:
        ValueError: at the draw, n is more than d.
    """

    @property
    def orthogonal(self) -> bool:
        """True."""
        return True

    @property
    def independent(self) -> Sphere:
        """Sphere()."""
        return Sphere()

    def direction(self, key: int, index: int, layout: Layout, batch: Shape) -> Direction:
        """Return column number `index` of the frame of `key`.

        Raises:
            ValueError: `index` is not below d.
        """
        require_room(index, layout.dim)
        draws = [Gaussian().direction(key, i, layout, batch) for i in range(index + 1)]
        if len(layout.blocks) == 1:
            once = _last_of_frame([draw(layout.blocks[0]) for draw in draws])
            return lambda block: once
        coefficients = _coefficients(draws, layout)
        return lambda block: _combined(coefficients, [draw(block) for draw in draws])


def _norm(draws: Iterable[Tensor]) -> Tensor:
    return torch.stack([draw.double().square().sum(-1).cpu() for draw in draws]).sum(0).sqrt()


def _scaled(draw: Tensor, norm: Tensor, dim: int) -> Tensor:
    return draw * (math.sqrt(dim) / norm).unsqueeze(-1).to(draw)


def _last_of_frame(draws: Sequence[Tensor]) -> Tensor:
    """Gram-Schmidt with every projection taken twice, so that even nearly parallel draws give orthogonal directions."""
    frame = draws[0].new_empty((*draws[0].shape[:-1], 0, draws[0].shape[-1]), dtype=torch.float64)
    for draw in draws:
        rest = draw.double()
        for _ in range(2):
            inner = (frame * rest.unsqueeze(-2)).sum(-1, keepdim=True)
            rest = rest - (inner * frame).sum(-2)
        frame = torch.cat((frame, (rest / rest.norm(dim=-1, keepdim=True)).unsqueeze(-2)), -2)
    return (frame[..., -1, :] * math.sqrt(frame.shape[-1])).to(draws[0].dtype)


def _coefficients(draws: Sequence[DenseDirection], layout: Layout) -> Tensor:
    """Coefficients (*batch, i + 1) of the last direction in the draws, by the Cholesky factor of their Gram matrix."""
    lower = torch.linalg.cholesky(sum(_gram(draws, block) for block in layout.blocks))
    last = torch.zeros(len(draws), 1, dtype=torch.float64, device=CPU)
    last[-1] = math.sqrt(layout.dim)
    solved: Tensor = torch.linalg.solve_triangular(lower.mT, last.expand(*lower.shape[:-1], 1), upper=True)
    return solved.squeeze(-1)


def _gram(draws: Sequence[DenseDirection], block: Block) -> Tensor:
    rows = torch.stack([draw(block).double() for draw in draws], -2)
    return (rows @ rows.mT).cpu()


def _combined(coefficients: Tensor, draws: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(draws[0])
    for coefficient, draw in zip(coefficients.unbind(-1), draws, strict=True):
        total += coefficient.unsqueeze(-1).to(draw) * draw
    return total
