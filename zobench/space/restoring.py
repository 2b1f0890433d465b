"""The engine of an optimizer: in place, and back from a copy where the way back would round."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from zobench.combination import Line
from zobench.groups import Factors, Groups
from zobench.law import Direction
from zobench.space.flat import REMEMBERED_BYTES
from zobench.space.in_place import InPlace
from zobench.space.stored import STAY, Point, Step, Stored

Pieces = list[Tensor | None]

NARROW = 2  # bytes of an entry that the way back would round


class Restoring(InPlace):
    """x <- x + sum of amount * u in place, as InPlace to the bit, but 16-bit parameters are perturbed from a copy of
    them and stepped from it: the way back would move them further than the step.

    Holds the copy, as large as these parameters; none of the others, except of all if they fit 16 MiB, which flush_
    then brings back exactly. While the directions of a plan fit 16 MiB they are held and drawn once a step, and small
    tensors move together.
    """

    def __init__(self, rounding: str = "nearest") -> None:
        super().__init__()
        self.rounding = rounding

    def attach(self, stored: Stored) -> None:
        """Find out which parameters are copied."""
        super().attach(stored)
        parameters, layout = stored.parameters, stored.layout
        self.narrow = [name for name, p in parameters.items() if p.dtype.itemsize <= NARROW]
        self._wide = [name for name, p in parameters.items() if p.dtype.itemsize > NARROW]
        is_small = sum(p.nbytes for p in parameters.values()) <= REMEMBERED_BYTES
        self._kept = list(parameters) if is_small else self.narrow
        self._segments = {segment.name: segment for segment in layout.segments}
        self._views = {name: self._pieces(name) for name in layout.blocks_of}
        self._origin: dict[str, list[Tensor]] = {}
        self._drawn: dict[Line, dict[str, Pieces]] = {}

    def flush_(self) -> None:
        """Come back from the copies, or as InPlace where not all parameters have one."""
        if self.point and len(self._kept) == len(self.stored.parameters):
            self._put_back(self._kept)
            self.point = {}
        else:
            super().flush_()

    def put_back_narrow(self) -> None:
        """Make 16-bit parameters x; the others stay at their point."""
        if self.point:
            self._put_back(self.narrow)

    def move_(self, point: Point, step: Step = STAY) -> None:
        """Replace x by (1 - p d shrink) x + p sum of step u + sum of point u, 16-bit parameters from their copy."""
        if not (self.point or point or step.amounts or step.shrink):
            return
        if point and not self.point:  # the first point of a plan: the parameters are still exactly x
            self._drawn.clear()
            self._keep_origin()
        lines = {**self.point, **point, **step.amounts}
        at_random = step.rounding is not None and (step.amounts or step.shrink)
        sweep = self._sweep if at_random or not self._remembers(lines) else self._sweep_remembered
        with self.stored.writing():
            self.put_back_narrow()  # before the sweep, which then adds to x and needs no way back
            for names, back in ((self.narrow, {}), (self._wide, self.way_back)):
                if names:
                    sweep(names, back, point, step)
            self.point = point
        self.stored.sweeps += 1

    def _sweep(self, names: Sequence[str], back: Point, forth: Point, step: Step) -> None:
        self.stored.prepare({**self.point, **forth, **step.amounts})
        change = self.stored.change(step, back, forth)
        if change.lines or change.shrink:
            self.stored.write_(change, names)

    @torch.no_grad()
    def _sweep_remembered(self, names: Sequence[str], back: Point, forth: Point, step: Step) -> None:
        for factors, alike in self._alike(step.groups, names).items():
            keep = 1.0 - factors.decay * step.shrink
            if keep != 1.0:
                torch._foreach_mul_(_all(self._views, alike), keep)
            for line in {**back, **forth, **step.amounts}:
                on = forth.get(line, 0.0) + factors.rate * step.amounts.get(line, 0.0)
                self._add(line, keep * back.get(line, 0.0) + on, alike)

    def _add(self, line: Line, amount: float, names: Sequence[str]) -> None:
        pieces = (pair for name in names for pair in zip(self._views[name], self._drawn[line][name], strict=True))
        moving = [(view, u) for view, u in pieces if u is not None] if amount else []
        if moving:
            views, directions = zip(*moving, strict=True)
            torch._foreach_add_(views, directions, alpha=amount)

    def _alike(self, groups: Groups, names: Iterable[str]) -> dict[Factors, list[str]]:
        """These parameters by the factors of their segments."""
        names_of: dict[Factors, list[str]] = {}
        for name in names:
            names_of.setdefault(groups.of(self._segments[name]), []).append(name)
        return names_of

    @torch.no_grad()
    def _keep_origin(self) -> None:
        """Copy the parameters that are put back, before they are perturbed."""
        if not self._origin:
            self._origin = {name: [torch.empty_like(view) for view in self._views[name]] for name in self._kept}
        if self._kept:
            torch._foreach_copy_(_all(self._origin, self._kept), _all(self._views, self._kept))

    @torch.no_grad()
    def _put_back(self, names: Sequence[str]) -> None:
        """Make kept parameters what they were before the plan."""
        if names:
            torch._foreach_copy_(_all(self._views, names), _all(self._origin, names))

    def _remembers(self, lines: Mapping[Line, float]) -> bool:
        """Whether these lines may be kept; if so they are drawn. Where there is no room, those of other points give
        way.
        """
        room = REMEMBERED_BYTES // sum(s.size * s.dtype.itemsize for s in self.stored.layout.segments)
        if len({**self._drawn, **dict(lines)}) > room:
            self._drawn = {line: drawn for line, drawn in self._drawn.items() if line in lines}
        if len(lines) > room:
            return False
        for line in lines:
            if line in self._drawn:
                continue
            draw = self.stored.direction(line)
            self._drawn[line] = {name: self._draw(draw, name) for name in self.stored.parameters}
        return True

    def _pieces(self, name: str) -> list[Tensor]:
        """Views of a parameter: its blocks, or all of it in the order of another memory format."""
        parameter = self.stored.parameters[name].detach()
        if self.stored.support.copies(name):
            return [_in_order(parameter, parameter)]
        return [self.stored.support.stored(block) for block in self.stored.layout.blocks_of[name]]

    def _draw(self, draw: Direction, name: str) -> Pieces:
        """A direction's part of a parameter, piece by piece; None where it is zero."""
        parameter, support = self.stored.parameters[name], self.stored.support
        blocks = support.layout.blocks_of[name]
        drawn = [draw(block) for block in blocks]
        if not support.copies(name) or all(u is None for u in drawn):
            return drawn[: len(self._views[name])]
        whole = parameter.new_zeros(parameter.numel(), dtype=blocks[0].segment.dtype)
        for block, u in zip(blocks, drawn, strict=True):
            if u is not None:
                whole[block.start : block.stop] = u
        return [_in_order(whole.view(parameter.shape), parameter).contiguous()]


def _all(pieces: Mapping[str, list[Tensor]], names: Sequence[str]) -> list[Tensor]:
    return [piece for name in names for piece in pieces[name]]


def _in_order(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A tensor's entries in the order in which the parameter's lie in memory."""
    dims = sorted(range(parameter.ndim), key=parameter.stride, reverse=True)
    return tensor.permute(dims).reshape(-1)
