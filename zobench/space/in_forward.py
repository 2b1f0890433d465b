"""InForwardSpace: the parameters of a torch module, displaced where they are read instead of where they are stored."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zobench.layout import Block
from zobench.space.blocks import for_each
from zobench.space.lazy_rows import LazyRows, overlaps
from zobench.space.module import TORN, Displacement, ModuleSpace, evaluate


class InForwardSpace(ModuleSpace):
    """The trainable parameters of a module; a displaced one exists only while the layer that reads it runs.

    While f() looks at a point, reading `layer.weight` gives weight + a u, drawn for that layer and freed after it. The
    stored parameters are written by steps alone: they come back exactly in every dtype, whatever f raises, and a step
    holds one displaced parameter beside the module. A two-point step draws its direction three times and writes once.
    Losses and steps are those of ModuleSpace, without the rounding that displacing in place leaves behind.

    f must read parameters as attributes of the modules that own them, as torch's layers do, in the thread that calls
    it. Raises as ModuleSpace.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self._blocks: dict[str, list[Block]] = {}
        for block in self.layout.blocks:
            self._blocks.setdefault(block.segment.name, []).append(block)
        segments = {p.data_ptr(): name for name, p in self._parameters.items()}
        sharing = [p for p in module.parameters() if p.data_ptr() in segments and p.numel()]
        self._segments = {id(p): segments[p.data_ptr()] for p in sharing}
        self._owners = [m for m in module.modules() if any(id(p) in self._segments for p in m._parameters.values())]
        tables = [m.weight for m in module.modules() if isinstance(m, nn.Embedding) and m.max_norm is None]
        self._tables = {self._segments[id(p)] for p in tables if id(p) in self._segments}
        self._latest: tuple[str, Tensor] | None = None

    def _move_to(self, target: Displacement, update: Displacement | None = None, shrink: float = 0.0) -> None:
        if self._torn:
            raise RuntimeError(TORN)
        if update is not None or shrink:
            self._torn = True  # until the sweep is whole
            self._sweep({}, update or {}, shrink)
            self._torn = False
        self._displacement = {line: amount for line, amount in target.items() if amount}
        self._directions = {line: self._direction(line) for line in self._displacement or self._directions}

    def _evaluate(self, f: Callable[[], Any]) -> float:
        if not self._displacement:
            return evaluate(f)
        with self._displaced():
            return evaluate(f)

    @contextmanager
    def _displaced(self) -> Iterator[None]:
        stored = [(owner, owner._parameters) for owner in self._owners]
        try:
            for owner, parameters in stored:
                owner.__dict__["_parameters"] = _Reading(parameters, self._read)
            yield
        finally:
            self._latest = None
            for owner, parameters in stored:
                owner.__dict__["_parameters"] = parameters

    def _read(self, parameter: Any) -> Any:
        name = self._segments.get(id(parameter))
        if name is None:
            return parameter
        if name in self._tables:
            return LazyRows(parameter, partial(self._rows, name), partial(self._whole, name, parameter))
        return self._whole(name, parameter)

    def _whole(self, name: str, parameter: Tensor) -> Tensor:
        if self._latest is None or self._latest[0] != name:
            self._latest = None  # its memory is free for the next one
            self._latest = (name, self._displaced_copy(name, parameter))
        return self._latest[1]

    @torch.no_grad()
    def _displaced_copy(self, name: str, parameter: Tensor) -> Tensor:
        copy = torch.empty_like(parameter)
        flat = copy.view(-1)
        lines = [(self._directions[line], amount) for line, amount in self._displacement.items()]

        def displace(block: Block) -> None:
            stored, part = self._view(block), flat[block.start : block.stop]
            for draw, amount in lines:
                u = draw(block)
                stored = torch.add(stored, u, alpha=amount, out=part) if u is not None else stored
            if stored is not part:
                part.copy_(stored)

        for_each(self._blocks[name], displace)
        return copy

    @torch.no_grad()
    def _rows(self, name: str, wanted: Tensor) -> Tensor:
        """The displaced rows of a table, in ascending order; blocks that hold none of them are not drawn."""
        table = self._parameters[name].detach()
        width, found = table.shape[1], table[wanted]
        lines = [(self._directions[line], amount) for line, amount in self._displacement.items()]

        def displace(block: Block) -> None:
            meetings = overlaps(block, wanted, width)
            for draw, amount in lines if meetings else ():
                u = draw(block)
                if u is not None:
                    for part, rows, columns, offset in meetings:
                        length = columns.stop - columns.start
                        seen = u[offset:][: (len(u) - offset) // length * length].view(-1, length)[rows]
                        found[part, columns] += amount * seen

        for_each(self._blocks[name], displace)
        return found


class _Reading(dict[str, Any]):
    """A module's parameters, each passed through `read` when the module looks it up."""

    def __init__(self, parameters: dict[str, Any], read: Callable[[Any], Any]) -> None:
        super().__init__(parameters)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        return self._read(super().__getitem__(name))
