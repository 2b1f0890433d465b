"""InForwardSpace: the parameters of a torch module, displaced where they are read instead of where they are stored."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zobench.layout import Block
from zobench.space.blocks import for_each
from zobench.space.lazy_rows import LazyRows, overlaps
from zobench.space.meeting import Meeting, in_two_threads
from zobench.space.module import TORN, Displacement, ModuleSpace, evaluate

Displace = Callable[[Block, list[Tensor], list[list[float]]], None]
"""Fills a block of each target with what is stored, displaced by its amounts."""


class InForwardSpace(ModuleSpace):
    """The trainable parameters of a module; a displaced one exists only while the layer that reads it runs.

    While f() looks at a point, reading `layer.weight` gives weight + a u, drawn for that layer and freed after it, and
    an embedding is displaced in the rows that are looked up. The stored parameters are written by steps alone: they
    come back exactly in every dtype, whatever f raises, and one displaced parameter a point is held beside the module.
    Losses and steps are those of ModuleSpace, without the rounding that displacing in place leaves behind.

    With `paired` two points of a line are looked at together, each in a thread with half of torch's threads, and share
    one drawing of the direction: f must then be safe to call from two threads. A two-point step draws twice and writes
    once; unpaired it draws three times.

    f must read parameters as attributes of the modules that own them, as torch's layers do, in the thread that calls
    it. Raises as ModuleSpace.
    """

    def __init__(self, module: nn.Module, paired: bool = False) -> None:
        super().__init__(module)
        self.paired = paired
        self._blocks: dict[str, list[Block]] = {}
        for block in self.layout.blocks:
            self._blocks.setdefault(block.segment.name, []).append(block)
        segments = {p.data_ptr(): name for name, p in self._parameters.items()}
        sharing = [p for p in module.parameters() if p.data_ptr() in segments and p.numel()]
        self._segments = {id(p): segments[p.data_ptr()] for p in sharing}
        self._owners = [m for m in module.modules() if any(id(p) in self._segments for p in m._parameters.values())]
        tables = [m.weight for m in module.modules() if isinstance(m, nn.Embedding) and m.max_norm is None]
        self._tables = {self._segments[id(p)] for p in tables if id(p) in self._segments}
        self._on_cpu = all(segment.device.type == "cpu" for segment in self.layout.segments)
        self._views = threading.local()

    def _move_to(self, target: Displacement, update: Displacement | None = None, shrink: float = 0.0) -> None:
        if self._torn:
            raise RuntimeError(TORN)
        if update is not None or shrink:
            self._torn = True  # until the sweep is whole
            self._sweep({}, update or {}, shrink)
            self._torn = False
        self._displacement = target
        self._directions = {line: self._direction(line) for line in self._displacement or self._directions}

    def _look(self, f: Callable[[], Any], points: list[Displacement]) -> list[float]:
        """The losses of points of one line, two at a time where the space is paired."""
        together = 2 if self.paired and self._on_cpu else 1
        return [loss for k in range(0, len(points), together) for loss in self._look_at(f, points[k : k + together])]

    def _look_at(self, f: Callable[[], Any], points: list[Displacement]) -> list[float]:
        self._move_to(points[-1])
        meeting = Meeting() if len(points) == 2 else None

        def look(index: int) -> float:
            self._views.latest = _View(self, points, index, meeting)
            try:
                return evaluate(f)
            finally:
                self._views.latest = None
                if meeting:
                    meeting.leave()

        with self._displaced():
            return in_two_threads(look) if meeting else [look(0)]

    @contextmanager
    def _displaced(self) -> Iterator[None]:
        stored = [(owner, owner._parameters) for owner in self._owners]
        try:
            for owner, parameters in stored:
                owner.__dict__["_parameters"] = _Reading(parameters, self._read)
            yield
        finally:
            for owner, parameters in stored:
                owner.__dict__["_parameters"] = parameters

    def _read(self, parameter: Any) -> Any:
        name = self._segments.get(id(parameter))
        view: _View | None = getattr(self._views, "latest", None)
        if name is None or view is None:
            return parameter
        if name in self._tables:
            return LazyRows(parameter, partial(view.rows, name), partial(view.whole, name))
        return view.whole(name)


class _View:
    """What one thread reads at its point: the parameters displaced by `points[index]`."""

    def __init__(self, space: InForwardSpace, points: list[Displacement], index: int, meeting: Meeting | None) -> None:
        self.space, self.index, self.meeting = space, index, meeting
        lines = list(points[0])
        self.draws = [space._directions[line] for line in lines]
        self.amounts = [[point[line] for line in lines] for point in points]
        self._latest: tuple[str, Tensor] | None = None

    def whole(self, name: str) -> Tensor:
        """The displaced parameter; the latest is kept, as layers may read one twice."""
        if self._latest is None or self._latest[0] != name:
            self._latest = None  # its memory is free for the next one
            copy = torch.empty_like(self.space._parameters[name])
            self._fill(name, copy, self._displace)
            self._latest = (name, copy)
        return self._latest[1]

    def rows(self, name: str, wanted: Tensor) -> Tensor:
        """The displaced rows of a table, in ascending order; blocks that hold none of them are not drawn."""
        found = self.space._parameters[name].detach()[wanted]
        self._fill(name, found, partial(self._displace_rows, wanted))
        return found

    @torch.no_grad()
    def _fill(self, name: str, mine: Tensor, displace: Displace) -> None:
        blocks = self.space._blocks[name]
        if self.meeting is None or len(blocks) == 1:
            for_each(blocks, lambda block: displace(block, [mine], [self.amounts[self.index]]))
            return
        with self.meeting.over(self.index, name, mine) as targets:
            if targets is None:  # the other thread reads something else, or nothing any more
                for_each(blocks, lambda block: displace(block, [mine], [self.amounts[self.index]]))
            else:
                for_each(blocks[self.index :: 2], lambda block: displace(block, targets, self.amounts))

    def _displace(self, block: Block, targets: list[Tensor], amounts: list[list[float]]) -> None:
        parts = [target.detach().view(-1)[block.start : block.stop] for target in targets]
        stored = [self.space._view(block)] * len(parts)
        for i, draw in enumerate(self.draws):
            u = draw(block)
            if u is not None:
                stored = [torch.add(s, u, alpha=a[i], out=p) for s, p, a in zip(stored, parts, amounts, strict=True)]
        for source, part in zip(stored, parts, strict=True):
            if source is not part:
                part.copy_(source)

    def _displace_rows(self, wanted: Tensor, block: Block, targets: list[Tensor], amounts: list[list[float]]) -> None:
        meetings = overlaps(block, wanted, targets[0].shape[1])
        for i, draw in enumerate(self.draws if meetings else ()):
            u = draw(block)
            if u is None:
                continue
            for part, rows, columns, offset in meetings:
                length = columns.stop - columns.start
                seen = u[offset:][: (len(u) - offset) // length * length].view(-1, length)[rows]
                for target, amount in zip(targets, amounts, strict=True):
                    target[part, columns] += amount[i] * seen


class _Reading(dict[str, Any]):
    """A module's parameters, each passed through `read` when the module looks it up."""

    def __init__(self, parameters: dict[str, Any], read: Callable[[Any], Any]) -> None:
        super().__init__(parameters)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        return self._read(super().__getitem__(name))
