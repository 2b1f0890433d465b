"""ParameterSpace: parameters without their module, as an optimizer has them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zobench.combination import Combination, Line
from zobench.groups import Factors, Groups
from zobench.law import Direction
from zobench.plan import Plan
from zobench.space.flat import REMEMBERED_BYTES
from zobench.space.module import Displacement, ModuleSpace, Step
from zobench.space.motion import Motion, motion
from zobench.space.space import Functions
from zobench.space.support import Rows

Named = tuple[str, nn.Parameter]
Pieces = list[Tensor | None]

NARROW = 2  # bytes of an entry that the way back would round


class ParameterSpace(ModuleSpace):
    """Groups of named parameters, moved in place (x <- x + a u); a name keys its directions, as in a ModuleSpace.

    Perturbs and steps as ModuleSpace to the bit, except that 16-bit parameters are perturbed from a copy of them and
    stepped from it, as in an InForwardSpace: the way back would move them further than the step. The copy is as large
    as these parameters; there is none of the others, except of all if they fit 16 MiB, which settle_, as after a loss
    that is not finite, brings back exactly.

    Nobody knows whether the losses have dropout in them: f is called twice more before the first plan. While the
    directions of a plan fit 16 MiB they are drawn once a step, and small tensors move together.

    Raises:
        UnknownNameError: rounding is neither "nearest" nor "stochastic".
        ValueError: as ModuleSpace; or two parameters of one name; stochastic rounding of float16.
    """

    def __init__(self, groups: Sequence[Sequence[Named]], rounding: str = "nearest") -> None:
        owners: dict[str, int] = {}
        for number, group in enumerate(groups):
            for name, _ in group:
                _require_new(name, owners)
                owners[name] = number
        super().__init__(_Parameters([pair for group in groups for pair in group]))
        self._round(rounding)
        self._segments = {segment.name: segment for segment in self.layout.segments}
        self._views = {name: self._pieces(name) for name in self.layout.blocks_of}
        self._drawn: dict[Line, dict[str, Pieces]] = {}
        self.narrow = [name for name, p in self._parameters.items() if p.dtype.itemsize <= NARROW]
        is_small = sum(p.nbytes for p in self._parameters.values()) <= REMEMBERED_BYTES
        self._kept = list(self._parameters) if is_small else self.narrow
        self._origin: dict[str, list[Tensor]] = {}

    def restrict(self, rows: Mapping[str, Rows]) -> None:
        """Refuse: which rows a loss reads is known of a module.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"rows of {sorted(rows)} cannot be chosen here: restrict a ModuleSpace or an InForwardSpace")

    def losses(self, f: Functions, plan: Plan) -> Tensor:
        """Return the losses of the plan's points, as ModuleSpace."""
        self._drawn.clear()
        return super().losses(f, plan)

    def walk_(self, plan: Plan) -> None:
        """Move to the points of the plan, as ModuleSpace."""
        self._drawn.clear()
        super().walk_(plan)

    def settle_(self) -> None:
        """Bring the parameters back from the last point of a plan."""
        if self._displacement and not self._torn and len(self._kept) == len(self._parameters):
            self._put_back(self._kept)
            self._displacement = {}
        else:
            super().settle_()

    def narrow_motion(self, gradient: Combination, scale: float, shrink: float, groups: Groups) -> Motion:
        """Return what step_ with these arguments will do to the 16-bit parameters; no other is touched, and these only
        put back. Cost: one sweep over them, no loss.
        """
        if self._displacement:
            self._put_back(self.narrow)
        change = self._change(Step(self._moved(gradient, scale), shrink, groups))
        return motion(self._support, dict.fromkeys(self.narrow, change))

    def _sweep(self, back: Displacement, forth: Displacement, step: Step, names: Iterable[str] | None = None) -> None:
        names = list(self._parameters if names is None else names)
        narrow = [name for name in names if self._parameters[name].dtype.itemsize <= NARROW]
        wide = [name for name in names if self._parameters[name].dtype.itemsize > NARROW]
        if not (back or forth or step.amounts or step.shrink):
            return
        if forth and not self._displacement:
            self._keep_origin()
        sweeps, self._torn = self.sweeps, True  # until the sweep is whole and noted
        if self._displacement:
            self._put_back(narrow)
        for part, way in ((narrow, {}), (wide, back)):
            if part:
                self._sweep_part(way, forth, step, part)
        self.sweeps = sweeps + 1

    @torch.no_grad()
    def _sweep_part(self, back: Displacement, forth: Displacement, step: Step, names: list[str]) -> None:
        lines = list(back | forth | step.amounts)
        at_random = self.rounding == "stochastic" and (step.amounts or step.shrink)
        if at_random or not self._remembers(lines):
            return super()._sweep(back, forth, step, names)
        for factors, alike in self._alike(step.groups, names).items():
            keep = 1.0 - factors.decay * step.shrink
            if keep != 1.0:
                torch._foreach_mul_(self._all(self._views, alike), keep)
            for line in lines:
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
        found: dict[Factors, list[str]] = {}
        for name in names:
            found.setdefault(groups.of(self._segments[name]), []).append(name)
        return found

    @torch.no_grad()
    def _keep_origin(self) -> None:
        """Copy the parameters that are put back, before they are displaced."""
        if not self._origin:
            self._origin = {name: [torch.empty_like(view) for view in self._views[name]] for name in self._kept}
        if self._kept:
            torch._foreach_copy_(self._all(self._origin, self._kept), self._all(self._views, self._kept))

    @torch.no_grad()
    def _put_back(self, names: Sequence[str]) -> None:
        """Make kept parameters what they were before the plan."""
        if names:
            torch._foreach_copy_(self._all(self._views, names), self._all(self._origin, names))

    def _all(self, pieces: Mapping[str, list[Tensor]], names: Sequence[str]) -> list[Tensor]:
        return [piece for name in names for piece in pieces[name]]

    def _remembers(self, lines: Sequence[Line]) -> bool:
        """Whether these lines, with those drawn since the plan began, may be kept; if so they are drawn."""
        missing = [line for line in lines if line not in self._drawn]
        size = sum(segment.size * segment.dtype.itemsize for segment in self.layout.segments)
        if size * (len(self._drawn) + len(missing)) > REMEMBERED_BYTES:
            return False
        for line in missing:
            draw = self._direction(line)
            self._drawn[line] = {name: self._draw(draw, name) for name in self._parameters}
        return True

    def _pieces(self, name: str) -> list[Tensor]:
        """Views of a parameter: its blocks, or all of it in the order of another memory format."""
        parameter = self._parameters[name].detach()
        if self._support.copies(name):
            return [_in_order(parameter, parameter)]
        return [self._support.stored(block) for block in self.layout.blocks_of[name]]

    def _draw(self, draw: Direction, name: str) -> Pieces:
        """A direction's part of a parameter, piece by piece; None where it is zero."""
        parameter, blocks = self._parameters[name], self.layout.blocks_of[name]
        drawn = [draw(block) for block in blocks]
        if not self._support.copies(name) or all(u is None for u in drawn):
            return drawn[: len(self._views[name])]
        whole = parameter.new_zeros(parameter.numel(), dtype=blocks[0].segment.dtype)
        for block, u in zip(blocks, drawn, strict=True):
            if u is not None:
                whole[block.start : block.stop] = u
        return [_in_order(whole.view(parameter.shape), parameter).contiguous()]


class _Parameters(nn.Module):
    """Named parameters as a module that counts as being in training mode."""

    def __init__(self, named: Sequence[Named]) -> None:
        super().__init__()
        self.named = list(named)

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[Named]:
        return iter(self.named)


def _in_order(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A tensor's entries in the order in which the parameter's lie in memory."""
    dims = sorted(range(parameter.ndim), key=parameter.stride, reverse=True)
    return tensor.permute(dims).reshape(-1)


def _require_new(name: str, taken: dict[str, int]) -> None:
    if name in taken:
        raise ValueError(f"two parameters are named {name!r}: names key the directions, so give each its own")
