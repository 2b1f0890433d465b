"""ParameterSpace: parameters without their module, as an optimizer has them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zobench.combination import Line
from zobench.groups import Factors, Groups
from zobench.plan import Plan
from zobench.space.flat import REMEMBERED_BYTES
from zobench.space.module import Displacement, ModuleSpace, Step
from zobench.space.space import Functions
from zobench.space.support import Rows

Named = tuple[str, nn.Parameter]


class ParameterSpace(ModuleSpace):
    """Groups of named parameters, moved in place (x <- x + a u); a name keys its directions, as in a ModuleSpace.

    Perturbs and steps as ModuleSpace, to the bit. Nobody knows whether the losses have dropout in them: f is called
    twice more before the first plan. While the directions of a plan fit 16 MiB they are drawn once a step, and small
    tensors move together. Parameters that fit 16 MiB are copied before a plan, so that settle_, as after a loss that is
    not finite, brings them back exactly.

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

    @torch.no_grad()
    def _sweep(self, back: Displacement, forth: Displacement, step: Step, names: Iterable[str] | None = None) -> None:
        wanted = set(step.amounts) | set(back) | set(forth)
        lines = [line for line in back | forth | step.amounts if line in wanted]
        if not self._remembers(lines):
            return super()._sweep(back, forth, step, names)
        if not lines and not step.shrink:
            return
        self.sweeps, self._torn = self.sweeps + 1, True
        for factors, places in self._alike(step.groups, names).items():
            keep = 1.0 - factors.decay * step.shrink
            if keep != 1.0:
                torch._foreach_mul_([self._views[place] for place in places], keep)
            for line in lines:
                on = forth.get(line, 0.0) + factors.rate * step.amounts.get(line, 0.0)
                amount = keep * back.get(line, 0.0) + on
                drawn = [(self._views[place], self._drawn[line][place]) for place in places] if amount else []
                moving = [(view, u) for view, u in drawn if u is not None]
                if moving:
                    views, directions = zip(*moving, strict=True)
                    torch._foreach_add_(views, directions, alpha=amount)

    def _alike(self, groups: Groups, names: Iterable[str] | None) -> dict[Factors, list[int]]:
        """The blocks of these parameters, or all, by the factors of their segments."""
        found: dict[Factors, list[int]] = {}
        chosen = None if names is None else set(names)
        for block in self.layout.blocks:
            if chosen is None or block.segment.name in chosen:
                found.setdefault(groups.of(block.segment), []).append(block.offset)
        return found

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
