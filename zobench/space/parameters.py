"""ParameterSpace: parameters without their module, in groups that step at paces of their own."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from zobench.combination import Combination, Line
from zobench.layout import Layout
from zobench.plan import Plan
from zobench.space.flat import REMEMBERED_BYTES
from zobench.space.module import TORN, Displacement, ModuleSpace
from zobench.space.space import Functions
from zobench.space.support import Rows

Named = tuple[str, nn.Parameter]


class ParameterSpace(ModuleSpace):
    """Groups of named parameters, moved in place (x <- x + a u); a name keys its directions, as in a ModuleSpace.

    Looks and steps as ModuleSpace to the bit, except that weight decay, which a group asks for, is for all of the
    group. Nobody knows whether the losses have dropout in them: f is called twice more before the first plan. While the
    directions of a plan fit 16 MiB they are drawn once a step, and small tensors move together. Parameters that fit
    16 MiB are copied before a plan, so that settle_, as after a loss that is not finite, brings them back exactly.

    Raises:
        ValueError: as ModuleSpace; or two parameters of one name, or one that is not real.
    """

    def __init__(self, groups: Sequence[Sequence[Named]]) -> None:
        owners: dict[str, int] = {}
        for number, group in enumerate(groups):
            for name, parameter in group:
                _require_usable(name, parameter, owners)
                owners[name] = number
        super().__init__(_Parameters([pair for group in groups for pair in group]))
        self.layout = Layout(tuple(replace(segment, decays=True) for segment in self.layout.segments))
        self._support = replace(self._support, layout=self.layout)
        self._members: list[list[str]] = [[] for _ in groups]
        for segment in self.layout.segments:
            self._members[owners[segment.name]].append(segment.name)
        self._views = {block.offset: self._support.stored(block) for block in self.layout.blocks}
        self._drawn: dict[Line, dict[int, Tensor | None]] = {}
        is_small = sum(view.nbytes for view in self._views.values()) <= REMEMBERED_BYTES
        self._origin = [torch.empty_like(view) for view in self._views.values()] if is_small else []

    def restrict(self, rows: Mapping[str, Rows]) -> None:
        """Refuse: which rows a loss reads is known of a module.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"rows of {sorted(rows)} cannot be chosen here: restrict a ModuleSpace or an InForwardSpace")

    def losses(self, f: Functions, plan: Plan) -> Tensor:
        """Return the losses of the plan's points, as ModuleSpace."""
        self._begin()
        return super().losses(f, plan)

    def walk_(self, plan: Plan) -> None:
        """Move to the points of the plan, as ModuleSpace."""
        self._begin()
        super().walk_(plan)

    def _begin(self) -> None:
        self._drawn.clear()
        if not self._displacement and self._origin and not self._torn:
            torch._foreach_copy_(self._origin, list(self._views.values()))

    def settle_(self) -> None:
        """Bring the parameters back from the last point of a plan."""
        if not self._displacement or not self._origin or self._torn:
            return super().settle_()
        with torch.no_grad():
            torch._foreach_copy_(list(self._views.values()), self._origin)
        self._displacement = {}

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

    @torch.no_grad()
    def _sweep(
        self,
        back: Displacement,
        forth: Displacement,
        step: Displacement,
        shrink: float,
        names: Iterable[str] | None = None,
    ) -> None:
        on = {line: forth.get(line, 0.0) + step.get(line, 0.0) for line in forth | step}  # at pace 1
        lines = [line for line in back | on if back.get(line, 0.0) + on.get(line, 0.0) or shrink]
        if not self._remembers(lines):
            return super()._sweep(back, forth, step, shrink, names)
        blocks = self.layout.blocks_of
        places = [block.offset for name in (blocks if names is None else names) for block in blocks[name]]
        if not places or not (lines or shrink):
            return
        self.sweeps += 1
        keep = 1.0 - shrink
        if keep != 1.0:
            torch._foreach_mul_([self._views[place] for place in places], keep)
        for line in lines:
            drawn = [(self._views[place], self._drawn[line][place]) for place in places]
            moving = [(view, u) for view, u in drawn if u is not None]
            if moving:
                views, directions = zip(*moving, strict=True)
                torch._foreach_add_(views, directions, alpha=keep * back.get(line, 0.0) + on.get(line, 0.0))

    def _remembers(self, lines: Sequence[Line]) -> bool:
        """Whether these lines, with those drawn since the plan began, may be kept; if so they are drawn."""
        missing = [line for line in lines if line not in self._drawn]
        size = sum(segment.size * segment.dtype.itemsize for segment in self.layout.segments)
        if size * (len(self._drawn) + len(missing)) > REMEMBERED_BYTES:
            return False
        for line in missing:
            draw = self._direction(line)
            self._drawn[line] = {block.offset: draw(block) for block in self.layout.blocks}
        return True


class _Parameters(nn.Module):
    """Named parameters as a module that counts as being in training mode."""

    def __init__(self, named: Sequence[Named]) -> None:
        super().__init__()
        self.named = list(named)

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[Named]:
        return iter(self.named)


def _require_usable(name: str, parameter: Tensor, taken: dict[str, int]) -> None:
    if name in taken:
        raise ValueError(f"two parameters are named {name!r}: names key the directions, so give each its own")
    if not parameter.is_floating_point():
        raise ValueError(f"parameter {name!r} is {parameter.dtype}: give real floating-point parameters")
