"""The batched engine: the points of all lines of a plan in one forward, which reads each weight once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zobench.combination import Line
from zobench.law.factors import factors_together, vectors_together
from zobench.layout import CPU, Segment
from zobench.numbers import count
from zobench.space.closure import Value
from zobench.space.factored import Factored
from zobench.space.folded import Folding
from zobench.space.in_forward import InForward
from zobench.space.stored import Point, Stored

Stack = tuple[Tensor, ...]
"""A vector at each point; or the left factors of a matrix (points, rows, rank), and the right ones (points, rank,
columns).
"""
WAY_OUT = "take the in-forward engine"


class Batched(InForward):
    """Directions u = L R of low rank; all points of a plan at once, or `points` of them.

    f runs once, under `torch.vmap` over the points, and a layer that reads a matrix W computes y = x (W + a u)^T as
    x W^T + a (x R^T) L^T: W is read once, and no perturbed copy of it exists. Vectors are perturbed for each point.
    Losses are those of InForward up to rounding; steps are the same to the bit.

    Holds the factors and the vectors of all points, and the activations of `points` forwards. f must be safe under
    vmap: it returns a tensor, and takes no number out of one that depends on the parameters (float, item, tolist,
    numpy, if).

    Raises:
        ValueError: `points` is no whole number from 1. When attached, as InForward, or a parameter has three
            dimensions or more, or belongs to a recurrent layer of torch. For a plan: its law is of no low rank, or f
            does what vmap cannot, or uses a matrix otherwise than in a product, by rows or in an embedding.
    """

    def __init__(self, points: int | None = None, rounding: str = "nearest", reads: torch.dtype | None = None) -> None:
        super().__init__(False, rounding, reads)
        self.points = None if points is None else count("points", points, "give a number of points a forward, from 1")

    def attach(self, stored: Stored) -> None:
        """Find the modules that own parameters, and refuse parameters that factors do not serve."""
        super().attach(stored)
        for owner in self.owners:
            for name, p in owner._parameters.items():
                if p is not None and id(p) in self._segments and (p.ndim > 2 or isinstance(owner, nn.RNNBase)):
                    raise ValueError(
                        f"the batched engine perturbs vectors, and matrices in products and embeddings, but {name} "
                        f"{tuple(p.shape)} of {type(owner).__name__} is none: {WAY_OUT}, or freeze the parameter"
                    )

    def losses(self, loss: Callable[[], Value], points: Sequence[Point]) -> list[Value]:
        """Evaluate at all points at once."""
        (losses,) = self.losses_of_lines(loss, [points])
        return losses

    def losses_of_lines(self, loss: Callable[[], Value], lines: Sequence[Sequence[Point]]) -> list[list[Value]]:
        """Evaluate at all points of all lines at once, or at `points` at a time."""
        points = [point for line in lines for point in line]
        size = self.points or len(points)
        parts = [self._together(loss, points[first : first + size]) for first in range(0, len(points), size)]
        losses = iter([value for value_of in parts for value in value_of])
        return [[next(losses) for _ in line] for line in lines]

    def _together(self, loss: Callable[[], Value], points: Sequence[Point]) -> list[Value]:
        """The losses at these points, of one forward."""
        lines = dict.fromkeys(line for point in points for line in point)
        if not lines:
            return super().losses(loss, points)
        _require_factored(lines)
        self.stored.prepare(lines)
        at = _Points.of(list(lines), points)
        directions = [self.stored.direction(line) for line in lines]
        stacks: dict[str, Stack] = {}
        for segments in self._alike():
            stacks |= self._matrices([s for s in segments if len(s.shape) == 2], directions, at)
            stacks |= self._vectors([s for s in segments if len(s.shape) != 2], directions, at)

        def at_point(stacks: Mapping[str, Stack]) -> Tensor:
            return _tensor(self.seen_by(_PointView(self, stacks), loss))

        with torch.no_grad(), self.looking({}), Folding(), _vmap_told():
            values = torch.vmap(at_point, randomness="same")(stacks)
        return list(values.double())

    def _alike(self) -> Iterable[Sequence[Segment]]:
        """The segments of one device and dtype, drawn and stored."""
        alike: dict[object, list[Segment]] = {}
        for s in self.stored.layout.segments:
            alike.setdefault((s.device, s.dtype, self.stored.parameters[s.name].dtype), []).append(s)
        return alike.values()

    @torch.no_grad()
    def _matrices(
        self, segments: Sequence[Segment], directions: Sequence[Any], points: "_Points"
    ) -> Mapping[str, Stack]:
        """The factors of matrices at the points. Those of all lie side by side, so that they take few calls."""
        if not segments:
            return {}
        factors, dtype = factors_together(directions, segments), self.reads or self._dtype(segments)
        lefts, rights = (points.chosen([[pair[side] for pair in row] for row in factors]) for side in (0, 1))
        rights.mul_(points.amounts.to(rights)[..., None])
        left_of = _cut(lefts.to(dtype), [left.shape for left, _ in factors[0]])
        right_of = _cut(rights.to(dtype), [right.shape for _, right in factors[0]])
        return {  # the terms of a point make one factor of a higher rank
            segment.name: (left.transpose(1, 2).flatten(2), right.flatten(1, 2))
            for segment, left, right in zip(segments, left_of, right_of, strict=True)
        }

    @torch.no_grad()
    def _vectors(
        self, segments: Sequence[Segment], directions: Sequence[Any], points: "_Points"
    ) -> Mapping[str, Stack]:
        """What vectors are at the points."""
        if not segments:
            return {}
        entries = vectors_together(directions, segments)
        parameters = [self.stored.parameters[s.name].detach() for s in segments]
        stored = torch.cat([parameter.flatten() for parameter in parameters]).to(entries.dtype)
        moved = torch.addmm(stored, points.along_lines.to(entries), entries)
        parts = _cut(moved.to(self.reads or self._dtype(segments)), [p.shape for p in parameters])
        return {segment.name: (part,) for segment, part in zip(segments, parts, strict=True)}

    def _dtype(self, segments: Sequence[Segment]) -> torch.dtype:
        return self.stored.parameters[segments[0].name].dtype

    def _read(self, parameter: Any) -> Any:
        view, name = getattr(self._views, "latest", None), self._segments.get(id(parameter))
        if isinstance(view, _PointView) and name is not None:
            return view.read(name, parameter.detach())
        return super()._read(parameter)


class _Points(NamedTuple):
    """Points as terms, `places` of lines and `amounts` (points, terms) along them, where a term of amount 0 stands
    for none; and as amounts `along_lines` (points, lines).
    """

    places: list[int]
    amounts: Tensor
    along_lines: Tensor

    @classmethod
    def of(cls, lines: Sequence[Line], points: Sequence[Point]) -> "_Points":
        """Return points by the places of their directions among `lines`."""
        place, most = {line: i for i, line in enumerate(lines)}, max(map(len, points))
        terms = [[*point.items(), *[(lines[0], 0.0)] * (most - len(point))] for point in points]
        table = partial(torch.tensor, dtype=torch.float64, device=CPU)
        return cls(
            [place[line] for row in terms for line, _ in row],
            table([[amount for _, amount in row] for row in terms]),
            table([[point.get(line, 0.0) for line in lines] for point in points]),
        )

    def chosen(self, factors: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return the factors of the lines, side by side, as those of the terms: (points, terms, entries)."""
        flat = [[factor.flatten() for factor in of_line] for of_line in factors]
        return torch.cat([factor for place in self.places for factor in flat[place]]).view(*self.amounts.shape, -1)


def _cut(rows: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Tensors that lie side by side, (..., entries), as (..., *shape) each."""
    parts = rows.split([shape.numel() for shape in shapes], -1)
    return [part.view(*part.shape[:-1], *shape) for part, shape in zip(parts, shapes, strict=True)]


class _PointView:
    """What f reads at its point, within a vmap over the points."""

    def __init__(self, engine: Batched, stacks: Mapping[str, Stack]) -> None:
        self.engine, self.stacks = engine, stacks

    def read(self, name: str, parameter: Tensor) -> Any:
        """Return a parameter at the point."""
        stack = self.stacks[name]
        if len(stack) == 1:
            return stack[0]
        (left, right), support = stack, self.engine.stored.support
        weight = parameter.to(self.engine.reads or parameter.dtype)
        places = partial(support.places, name) if name in support.rows else None
        return Factored(repr(name), weight, left, right, places, partial(support.require_whole, name))


def _require_factored(lines: Mapping[Line, None]) -> None:
    for law, _, _ in lines:
        if not law.factored:
            raise ValueError(
                f"the batched engine needs directions of low rank, but the law is {law!r}: give LowRank "
                f"(law=low-rank), or {WAY_OUT}"
            )


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    raise ValueError(f"the loss is {value!r}, the same number at several points at once: {_RETURN}, or {WAY_OUT}")


_RETURN = (
    "let it return a tensor, and take no number out of one that depends on the parameters (float, item, tolist, numpy, "
    "if)"
)


@contextmanager
def _vmap_told() -> Iterator[None]:
    """Say what to do where vmap fails."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if "vmap" not in reason and "storage" not in reason:
            raise
        raise ValueError(
            f"the loss cannot be evaluated at several points at once ({reason}): {_RETURN}, or {WAY_OUT}"
        ) from error
