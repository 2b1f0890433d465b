"""Where an estimate looks, seen from outside: the displacements of the points at which f is evaluated."""

import math
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from zobench import CentralStencil, ForwardStencil, OnePointStencil, RichardsonStencil
from zobench.law import Coordinate, Gaussian, Law, Orthogonal, Rademacher, Sphere
from zobench.stencil import Stencil
from zobench.testing import Subject, examples

KEYS, NEAR = 200, 1e-5
KURTOSIS = 0.5
STENCILS: dict[tuple[tuple[float, ...], bool], Stencil] = {
    ((-1.0, 1.0), False): CentralStencil(),
    ((-1.0, 1.0), True): CentralStencil(),
    ((1.0,), True): ForwardStencil(),
    ((1.0,), False): OnePointStencil(),
    ((-2.0, -1.0, 1.0, 2.0), False): RichardsonStencil(),
    ((-2.0, -1.0, 1.0, 2.0), True): RichardsonStencil(),
}
"""Stencils by the nodes of a line in units of the nearest, and whether x itself is evaluated."""


class Probe(NamedTuple):
    """What calls under some keys looked at.

    `evaluations` least and most of a call; `at_x` of them at x itself; `lines` a call; `nodes` on a line in units of
    the nearest; `directions` (N, d), the nearest displacement of each line; `law` where it is one of ours.
    """

    evaluations: tuple[int, int]
    at_x: int
    lines: int
    nodes: tuple[float, ...]
    directions: Tensor
    law: Law | None

    @property
    def stencil(self) -> Stencil | None:
        """The stencil of ours with these nodes."""
        return STENCILS.get((self.nodes, self.at_x > 0))

    @property
    def length(self) -> float:
        """e, where displacements are e u with E|u|^2 = d."""
        return math.sqrt(float(self.directions.square().sum(-1).mean()) / self.directions.shape[-1])

    @property
    def effective_dimension(self) -> float:
        """1 / mean of cos^2 between directions of different calls: d where they are isotropic, less where they are
        tied.
        """
        unit = self.directions / self.directions.norm(dim=-1, keepdim=True)
        count = len(unit)
        pairs = float((unit.T @ unit).square().sum()) - count
        return count * (count - 1) / pairs if pairs > 0 and count > 1 else math.nan

    @property
    def still(self) -> list[int]:
        """The coordinates that never move."""
        return [i for i, moved in enumerate(self.directions.abs().sum(0).tolist()) if moved == 0]

    @property
    def asymmetry(self) -> float:
        """The largest |z| of the mean of a coordinate, where each line looks to both sides 0."""
        if any(-node in self.nodes for node in self.nodes):
            return 0.0
        error = self.directions.std(0) / math.sqrt(len(self.directions)) + 1e-12 * self.directions.abs().max()
        return float((self.directions.mean(0) / error).abs().max())


def probe(subject: Subject, dim: int, keys: int = KEYS) -> Probe | None:
    """Return where a subject looks; None where it evaluates f nowhere but at x, or not at all."""
    example = examples.linear(max(dim, subject.least_dim))
    counts, calls = [], []
    for key in range(keys):
        points = subject.points(example.f, example.x, key)
        counts.append(len(points))
        if points:
            calls.append(torch.stack(points).double() - example.x)
    size = max((float(call.abs().max()) for call in calls), default=0.0)
    if not size:
        return None
    lines = [_lines(call, NEAR * size) for call in calls]
    first, nodes = [n for call in lines for _, n in call], [u for call in lines for u, _ in call]
    at_x = Counter(int((call.abs().amax(-1) <= NEAR * size).sum()) for call in calls).most_common(1)[0][0]
    directions = torch.stack(nodes)
    count = Counter(map(len, lines)).most_common(1)[0][0]
    law = _law(directions, [[u for u, _ in call] for call in lines])
    return Probe((min(counts), max(counts)), at_x, count, Counter(first).most_common(1)[0][0], directions, law)


def _lines(displacements: Tensor, near: float) -> list[tuple[Tensor, tuple[float, ...]]]:
    """Each line's nearest displacement and its nodes in units of that."""
    lines: list[list[Tensor]] = []
    for moved in displacements:
        if float(moved.abs().max()) <= near:
            continue
        for line in lines:
            if abs(float(torch.nn.functional.cosine_similarity(line[0], moved, 0))) > 1 - NEAR:
                line.append(moved)
                break
        else:
            lines.append([moved])
    return [_nodes(line) for line in lines]


def _nodes(line: list[Tensor]) -> tuple[Tensor, tuple[float, ...]]:
    nearest = min(line, key=lambda moved: round(float(moved.norm()), 12))
    square = float(nearest @ nearest)
    return nearest, tuple(sorted({round(float(moved @ nearest) / square, 3) for moved in line}))


def _law(directions: Tensor, calls: list[list[Tensor]]) -> Law | None:
    """The law of ours that directions look like."""
    dim, sizes = directions.shape[-1], directions.abs()
    largest = sizes.amax(-1)
    several = len(calls[0]) > 1 and all(_orthogonal(call) for call in calls)
    if bool(((sizes > NEAR * largest[:, None]).sum(-1) == 1).all()):
        return Coordinate(replace=not several)
    if bool((sizes.amin(-1) > (1 - NEAR) * largest).all()):
        return Rademacher()
    norms = directions.norm(dim=-1)
    if float(norms.max() - norms.min()) < NEAR * float(norms.max()):
        return Orthogonal() if several else Sphere()
    flat = directions.flatten()
    kurtosis = float((flat**4).mean() / flat.square().mean() ** 2)
    return Gaussian() if abs(kurtosis - 3.0) < KURTOSIS * math.sqrt(KEYS * 5 / len(flat)) + 0.3 and dim > 1 else None


def _orthogonal(call: list[Tensor]) -> bool:
    unit = torch.stack(call) / torch.stack(call).norm(dim=-1, keepdim=True)
    return float((unit @ unit.T - torch.eye(len(call), dtype=unit.dtype, device=unit.device)).abs().max()) < 1e-3
