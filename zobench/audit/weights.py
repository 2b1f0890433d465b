"""The weights that an estimate gives to the values of f on its lines, seen from outside."""

from typing import NamedTuple

import torch
from torch import Tensor

from zobench.audit.probing import NEAR, grouped
from zobench.testing import Subject
from zobench.testing.examples import Example

CLOSE = 1e-4  # of the largest entry: values are numbers of float64, which an estimate divides by epsilon


class Line(NamedTuple):
    """A part sum_k c_k f(x + r_k a) a of an estimate, a the nearest displacement of its line: nodes r_k, 0 for x, and
    weights c_k / s with the slope s = sum_k c_k r_k.
    """

    nodes: tuple[float, ...]
    weights: tuple[float, ...]
    slope: float


class _At:
    """1 at a point, 0 elsewhere: an estimate of it is what the point adds."""

    def __init__(self, point: Tensor, near: float) -> None:
        self.point, self.near = point, near

    def __call__(self, x: Tensor) -> Tensor:
        return ((x.double() - self.point).abs().amax(-1) <= self.near).double()


def lines(subject: Subject, example: Example, key: int) -> list[Line] | None:
    """Return the lines of the estimate under a key in the order in which it looks along them; None where it is no such
    sum: not linear in the values of f, or not along its displacements.
    """
    f, x = example.f, example.x
    points = torch.stack([x, *subject.points(f, x, key)]).double() - x
    near = NEAR * float(points.abs().max())
    groups = grouped(points, near) if near else []
    if not groups:
        return None
    moves = [torch.zeros_like(x), *(moved for line in groups for moved in line)]
    rows = torch.stack([subject.estimate(_At(x + moved, near), x, key) for moved in moves])
    values = torch.stack([f(x + moved) for moved in moves]).double()
    slack = CLOSE * float(rows.abs().max())
    if not float((values @ rows - subject.estimate(f, x, key)).abs().max()) <= slack * float(values.abs().max() + 1):
        return None
    added = iter(rows[1:].unbind())
    parts = [_part(line, [next(added) for _ in line], slack) for line in groups]
    return None if None in parts else _with_base([part for part in parts if part], rows[0], slack)


class _Part(NamedTuple):
    """A line before x itself is among its nodes."""

    displacement: Tensor
    nodes: list[float]
    weights: list[float]

    def with_x(self, weight: float) -> Line:
        """Return the line with its slope; its nodes ascend."""
        nodes, weights = ([*self.nodes, 0.0], [*self.weights, weight]) if weight else (self.nodes, self.weights)
        slope = sum(c * r for c, r in zip(weights, nodes, strict=True))
        pairs = sorted((r, c / slope if slope else 0.0) for r, c in zip(nodes, weights, strict=True))
        return Line(tuple(r for r, _ in pairs), tuple(w for _, w in pairs), slope)


def _part(line: list[Tensor], rows: list[Tensor], slack: float) -> _Part | None:
    """The nodes and the weights of a line's points; None where they add what is not along the line."""
    a = min(line, key=lambda moved: round(float(moved.norm()), 12))
    square = float(a @ a)
    weights = [float(row @ a) / square for row in rows]
    if any(float((row - c * a).abs().max()) > slack for c, row in zip(weights, rows, strict=True)):
        return None
    return _Part(a, [round(float(moved @ a) / square, 6) for moved in line], weights)


def _with_base(parts: list[_Part], base: Tensor, slack: float) -> list[Line] | None:
    """The lines: x itself has no weight, or on each line that which makes their sum 0; None where it is neither."""
    if float(base.abs().max()) <= slack:
        return [part.with_x(0.0) for part in parts]
    sums = [sum(part.weights) for part in parts]
    rest = base + torch.stack([c * part.displacement for c, part in zip(sums, parts, strict=True)]).sum(0)
    based = float(rest.abs().max()) <= slack
    return [part.with_x(-c) for c, part in zip(sums, parts, strict=True)] if based else None
