"""ParameterSpace: parameters without their module, in groups that step at paces of their own."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from zobench.combination import Combination
from zobench.law import Direction
from zobench.layout import Layout
from zobench.plan import Plan
from zobench.space.flat import REMEMBERED_BYTES
from zobench.space.module import TORN, Displacement, Line, ModuleSpace
from zobench.space.motion import Motion, motion
from zobench.space.support import Rows
from zobench.space.sweep import Change

Named = tuple[str, nn.Parameter]
Pieces = list[Tensor | None]

NARROW = 2  # bytes of an entry that the way back would round


class ParameterSpace(ModuleSpace):
    """Groups of named parameters, moved in place (x <- x + a u); a name keys its directions, as in a ModuleSpace.

    Looks and steps as ModuleSpace to the bit, except that weight decay, which a group asks for, is for all of the
    group, and that 16-bit parameters are displaced from a copy of them and stepped from it, as in an InForwardSpace:
    the way back would move them further than the step. The copy is as large as these parameters; there is none of the
    others, except of all if they fit 16 MiB, which settle_, as after a loss that is not finite, brings back exactly.

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
        self.layout = Layout(tuple(replace(segment, decays=True) for segment in self.layout.segments))
        self._support = replace(self._support, layout=self.layout)
        self._members: list[list[str]] = [[] for _ in groups]
        for segment in self.layout.segments:
            self._members[owners[segment.name]].append(segment.name)
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

    def losses(self, f: Callable[[], Any], plan: Plan) -> Tensor:
        """Return the losses of the plan's points, as ModuleSpace."""
        self._drawn.clear()
        return super().losses(f, plan)

    def settle_(self) -> None:
        """Bring the parameters back from the last point of a plan."""
        if self._displacement and not self._torn and len(self._kept) == len(self._parameters):
            self._put_back(self._kept)
            self._displacement = {}
        else:
            super().settle_()

    def step_groups_(self, combination: Combination, scales: Sequence[float], shrinks: Sequence[float]) -> None:
        """Replace x by (1 - shrinks[g]) x + scales[g] * combination in group g, in the one sweep that also restores.

        Raises:
            FloatingPointError: as step_.
        """
        if len(set(zip(scales, shrinks, strict=True))) == 1:
            return self.step_(combination, scales[0], shrinks[0])
        moved = [self._moved(combination, scale) for scale in scales]
        if self._torn:
            raise RuntimeError(TORN)
        back = {line: -amount for line, amount in self._displacement.items()}
        sweeps, self._torn = self.sweeps, True
        for forth, shrink, names in zip(moved, shrinks, self._members, strict=True):
            self._sweep(back, {}, forth, shrink, names)
        self._displacement, self._torn, self.sweeps = {}, False, sweeps + 1

    def narrow_motion(self, combination: Combination, scales: Sequence[float], shrinks: Sequence[float]) -> Motion:
        """Return what step_groups_ with these arguments will do to the 16-bit parameters; no other is touched, and
        these only put back. Cost: one sweep over them, no loss.
        """
        if self._displacement:
            self._put_back(self.narrow)
        changes: dict[str, Change] = {}
        for scale, shrink, names in zip(scales, shrinks, self._members, strict=True):
            change = self._change(self._moved(combination, scale), shrink)
            changes |= dict.fromkeys(set(names).intersection(self.narrow), change)
        return motion(self._support, changes)

    def _sweep(
        self,
        back: Displacement,
        forth: Displacement,
        step: Displacement,
        shrink: float,
        names: Iterable[str] | None = None,
    ) -> None:
        names = list(self._parameters if names is None else names)
        narrow = [name for name in names if self._parameters[name].dtype.itemsize <= NARROW]
        wide = [name for name in names if self._parameters[name].dtype.itemsize > NARROW]
        if not (back or forth or step or shrink):
            return
        if forth and not self._displacement:
            self._keep()
        sweeps, self._torn = self.sweeps, True  # until the sweep is whole and noted
        if self._displacement:
            self._put_back(narrow)
        for part, way in ((narrow, {}), (wide, back)):
            if part:
                self._sweep_part(way, forth, step, shrink, part)
        self.sweeps = sweeps + 1

    @torch.no_grad()
    def _sweep_part(
        self, back: Displacement, forth: Displacement, step: Displacement, shrink: float, names: list[str]
    ) -> None:
        on = {line: forth.get(line, 0.0) + step.get(line, 0.0) for line in forth | step}  # at pace 1
        lines = [line for line in back | on if back.get(line, 0.0) + on.get(line, 0.0) or shrink]
        at_random = self.rounding == "stochastic" and (step or shrink)
        if at_random or not self._remembers(lines):
            return super()._sweep(back, forth, step, shrink, names)
        keep = 1.0 - shrink
        if keep != 1.0:
            torch._foreach_mul_(self._all(self._views, names), keep)
        for line in lines:
            drawn = [pair for name in names for pair in zip(self._views[name], self._drawn[line][name], strict=True)]
            moving = [(view, u) for view, u in drawn if u is not None]
            if moving:
                views, directions = zip(*moving, strict=True)
                torch._foreach_add_(views, directions, alpha=keep * back.get(line, 0.0) + on.get(line, 0.0))

    @torch.no_grad()
    def _keep(self) -> None:
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
