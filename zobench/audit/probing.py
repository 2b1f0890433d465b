"""Where an estimate looks, seen from outside: the displacements of the points at which f is evaluated."""

import math
from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.law import Coordinate, Gaussian, Law, Orthogonal, Rademacher, Sphere
from zobench.testing import Subject, examples

KEYS, NEAR = 200, 1e-5
KURTOSIS = 0.5


class Probe(NamedTuple):
    """What calls under some keys looked at.

    `evaluations` least and most of a call; `at_x` of them at x itself; `lines` a call; `nodes` on a line in units of
    the nearest; `directions` (N, d), the nearest displacement of each line; `lengths` e of e u, E|u|^2 = d, by
    the line's place in its call; `law` of u where it is one of ours.
    """

    evaluations: tuple[int, int]
    at_x: int
    lines: int
    nodes: tuple[float, ...]
    directions: Tensor
    lengths: tuple[float, ...]
    law: Law | None

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
    lines = [[_nodes(line) for line in grouped(call, NEAR * size)] for call in calls]
    first, nodes = [n for call in lines for _, n in call], [u for call in lines for u, _ in call]
    at_x = Counter(int((call.abs().amax(-1) <= NEAR * size).sum()) for call in calls).most_common(1)[0][0]
    count = Counter(len(call) for call in lines if call).most_common(1)[0][0]
    places = torch.stack([torch.stack([u for u, _ in call]) for call in lines if len(call) == count])
    lengths = places.square().mean((0, 2)).sqrt()
    law = _law(places / lengths[:, None])
    directions = torch.stack(nodes)
    nodes_of_most = Counter(first).most_common(1)[0][0]
    least, most = min(counts), max(counts)
    return Probe((least, most), at_x, count, nodes_of_most, directions, tuple(lengths.tolist()), law)


def grouped(displacements: Tensor, near: float) -> list[list[Tensor]]:
    """Return the displacements from x along each line, each once; those below `near` are x itself."""
    lines: list[list[Tensor]] = []
    for moved in displacements:
        if float(moved.abs().max()) <= near:
            continue
        for line in lines:
            if abs(float(torch.nn.functional.cosine_similarity(line[0], moved, 0))) > 1 - NEAR:
                if not any(float((moved - known).abs().max()) <= near for known in line):
                    line.append(moved)
                break
        else:
            lines.append([moved])
    return lines


def _nodes(line: list[Tensor]) -> tuple[Tensor, tuple[float, ...]]:
    nearest = min(line, key=lambda moved: round(float(moved.norm()), 12))
    square = float(nearest @ nearest)
    return nearest, tuple(sorted({round(float(moved @ nearest) / square, 3) for moved in line}))


def _law(calls: Tensor) -> Law | None:
    """The law of ours that directions look like, (calls, lines, d) with E|u|^2 = d on each line."""
    directions = calls.flatten(0, 1)
    dim, sizes = directions.shape[-1], directions.abs()
    largest = sizes.amax(-1)
    several = calls.shape[1] > 1 and all(_orthogonal(call) for call in calls)
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


def _orthogonal(call: Tensor) -> bool:
    unit = call / call.norm(dim=-1, keepdim=True)
    return float((unit @ unit.T - torch.eye(len(call), dtype=unit.dtype, device=unit.device)).abs().max()) < 1e-3
