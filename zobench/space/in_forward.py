"""The in-forward engine: parameters are perturbed where they are read instead of where they are stored."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from zobench.layout import Block
from zobench.random import fused
from zobench.random.native import NativeLine
from zobench.space.closure import Value
from zobench.space.engine import Engine
from zobench.space.lazy_rows import LazyRows, RowSweep
from zobench.space.meeting import Job
from zobench.space.scratch import Scratch
from zobench.space.stored import Point, Step, Stored
from zobench.space.support import Support
from zobench.space.sweep import NOTHING, Change, Drawn, Sweep, Update, native_lines
from zobench.space.tangents import Tangents
from zobench.space.trainable import require_alike
from zobench.threads import in_parallel

Result = TypeVar("Result")


class Pending(NamedTuple):
    """A change that was asked for and is not yet written, and the entries that its directions live on."""

    change: Change
    support: Support


class InForward(Engine):
    """A layer that reads its parameter x gets x + a u, drawn for it and freed after it; an embedding is perturbed in
    the rows that are looked up. The stored parameters are written by steps alone.

    With `deferred` a step is pending until the next look, and written as each parameter is read, in the same pass over
    it. Holds one perturbed parameter.

    f must read parameters as attributes of the modules that own them, as torch's layers do, in the thread that calls
    it.

    Raises:
        ValueError: when attached, a parameter is stored in two shapes.
    """

    least_blocks = 1
    """From how many blocks on a pending step is written while the parameter is read."""

    def __init__(self, deferred: bool = False, rounding: str = "nearest", reads: torch.dtype | None = None) -> None:
        self.deferred, self.rounding, self.reads = deferred, rounding, reads
        self.pending: dict[str, list[Pending]] = {}
        self.flushing = threading.Lock()
        self.tearing: set[str] = set()
        self._views = threading.local()

    def attach(self, stored: Stored) -> None:
        """Find the modules that own parameters, and the embeddings among them."""
        super().attach(stored)
        module = stored.module
        segments = {p.data_ptr(): name for name, p in stored.parameters.items()}
        sharing = [p for p in module.parameters() if p.data_ptr() in segments and p.numel()]
        self._segments = {id(p): segments[p.data_ptr()] for p in sharing}
        for p in sharing:
            require_alike(self._segments[id(p)], stored.parameters[self._segments[id(p)]], p)
        self.owners = [m for m in module.modules() if any(self._is_read(p) for p in m._parameters.values())]
        tables = [m.weight for m in module.modules() if isinstance(m, nn.Embedding) and m.max_norm is None]
        self.tables = {self._segments[id(p)] for p in tables if id(p) in self._segments}

    def losses(self, loss: Callable[[], Value], points: Sequence[Point]) -> list[Value]:
        """Evaluate at one point after the other."""
        losses = []
        for point in points:
            with self.looking(point):
                losses.append(self.seen_by(View(self, [point], 0), loss))
        return losses

    def step_(self, step: Step) -> None:
        """Note the step; write it, unless the engine defers."""
        pending = Pending(self.stored.change(step), self.stored.support)
        if pending.change.lines or step.shrink:
            self.stored.sweeps += 1
            self.pending = {
                name: [*self.pending.get(name, ()), pending] for name in self.stored.parameters
            }  # all or none
        if not self.deferred:
            self.flush_()

    def flush_(self) -> None:
        """Write what is pending."""
        self.write_pending(self.stored.parameters)

    def write_pending(self, names: Sequence[str] | Mapping[str, Any]) -> None:
        """Write what is pending for these parameters, first things first."""
        while due := {name: self.pending[name][0] for name in names if name in self.pending}:
            for pending in {id(pending): pending for pending in due.values()}.values():
                group = [name for name in due if due[name] is pending]
                with self.stored.writing():
                    self.stored.write_(pending.change, group, pending.support)
                    for name in group:  # noted in it: an interrupt must not leave a written change pending
                        self._written(name)

    def pending_with(self, name: str) -> tuple[Update, Callable[[], None]]:
        """What is pending for a parameter, and what to do when it is written while the parameter is read."""
        if name in self.tables or name not in self.pending:
            return NOTHING, lambda: None
        self.tearing.add(name)  # until `finish`: an error meanwhile leaves the parameter half written

        def finish() -> None:
            self._written(name)
            self.tearing.discard(name)

        return self.pending[name][0].change.of(self.stored.layout.blocks_of[name][0].segment), finish

    def _written(self, name: str) -> None:
        left = self.pending.pop(name, [])[1:]
        if left:
            self.pending[name] = left

    def _is_written_as_read(self, name: str) -> bool:
        """Whether what is pending can be written while the parameter is read: one change, of a whole matrix."""
        pending, support = self.pending.get(name, ()), self.stored.support
        large = len(support.layout.blocks_of[name]) >= self.least_blocks
        whole = name not in self.tables and not support.copies(name)
        return large and whole and len(pending) == 1 and name not in pending[0].support.rows

    @contextmanager
    def looking(self, point: Point, readers: int = 1) -> Iterator[None]:
        """The context in which owners hand out what the view of each of so many threads makes of a parameter, along the
        lines of a point. What cannot be written meanwhile is written before.
        """
        self.stored.prepare(point)
        self.write_pending([name for name in self.pending if not (point and self._is_written_as_read(name))])
        try:
            with self._handing_out():
                yield
        finally:
            self.stored.torn = self.stored.torn or bool(self.tearing)

    def seen_by(self, view: object, loss: Callable[[], Result]) -> Result:
        """Return the loss of what this thread reads through a view."""
        self._views.latest = view
        try:
            return loss()
        finally:
            self._views.latest = None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The context in which a forward of this thread reads parameters in the dtype that losses do."""
        if self.reads is None:
            yield
            return
        with self._handing_out():
            self._views.latest = View(self, [{}], 0)
            try:
                yield
            finally:
                self._views.latest = None

    @contextmanager
    def tangents(self, line: Drawn) -> Iterator[None]:
        """The context in which f reads tangents; one exists only while the layer that reads it runs."""
        with self._handing_out():
            self._views.latest = Tangents(self.stored.support, self.reads, line)
            try:
                yield
            finally:
                self._views.latest = None

    @contextmanager
    def _handing_out(self) -> Iterator[None]:
        stored = [(owner, owner._parameters) for owner in self.owners]
        try:
            for owner, parameters in stored:
                # Module.__getattr__ looks parameters up in this dictionary: so no layer's code has to change.
                owner.__dict__["_parameters"] = _Reading(parameters, self._read)
            yield
        finally:
            for owner, parameters in stored:
                owner.__dict__["_parameters"] = parameters

    def _is_read(self, parameter: Any) -> bool:
        cast = self.reads is not None and parameter is not None and parameter.is_floating_point()
        return id(parameter) in self._segments or cast

    def _read(self, parameter: Any) -> Any:
        name = self._segments.get(id(parameter))
        view: View | Tangents | None = getattr(self._views, "latest", None)
        if view is None:  # a thread that evaluates no loss, such as a data loader's
            return parameter
        if name is None:
            return parameter.to(self.reads) if self._is_read(parameter) else parameter
        if name in self.tables or name in self.stored.support.rows:  # perturbing all of a vocabulary would be waste
            dtype = self.reads or parameter.dtype
            repeating = isinstance(view, View) and view.is_fused(name)
            return LazyRows(parameter, dtype, partial(view.rows, name), partial(view.whole, name), repeating)
        return view.whole(name)


class View:
    """What one thread reads at its point: the parameters perturbed to `points[index]`."""

    def __init__(self, engine: InForward, points: Sequence[Point], index: int) -> None:
        self.engine, self.stored, self.index = engine, engine.stored, index
        lines = list(points[0])
        self.draws = [self.stored.direction(line) for line in lines]
        self.amounts = [[point[line] for line in lines] for point in points]
        self._latest: tuple[str, Tensor] | None = None
        self._chosen: dict[str, Tensor] = {}
        self._scratch = Scratch()

    def whole(self, name: str) -> Tensor:
        """The perturbed parameter; the latest is kept, as layers may read one twice."""
        parameter = self.stored.parameters[name]
        self.stored.support.require_whole(name)
        if self._latest is None or self._latest[0] != name:
            self._latest = None  # its memory is free for the next one
            self._latest = (name, self._filled(name, parameter))
        return self._latest[1]

    def rows(self, name: str, wanted: Tensor) -> Tensor:
        """The perturbed rows of a table, in ascending order; blocks that hold none of them are not drawn."""
        parameter = self.stored.parameters[name].detach()
        dtype = self.engine.reads or parameter.dtype
        if name in self.stored.support.rows:
            return self._chosen_rows(name, parameter, dtype, wanted)
        wide = torch.promote_types(parameter.dtype, dtype)
        if not self.draws:
            return parameter[wanted].to(dtype)

        if self.is_fused(name):
            values = parameter[wanted].to(wide)
            fused.add_rows(values, wanted, self._native_lines(name) or ())
            return values.to(dtype)

        def fresh(_: Scratch) -> Tensor:
            return parameter[wanted].to(wide)

        return self.fill(name, fresh, partial(RowSweep, self.blocks(name), wanted), wanted).to(dtype)

    def is_fused(self, name: str) -> bool:
        """Whether a kernel perturbs rows of a table, in any order."""
        segment = self.blocks(name)[0].segment
        able = fused.available(segment.device) and fused.draws_rows(segment.shape[-1], segment.dtype)
        return able and name not in self.stored.support.rows and self._native_lines(name) is not None

    def _native_lines(self, name: str) -> Sequence[NativeLine] | None:
        lines = native_lines(self.blocks(name)[0].segment, self.lines((self.index,)))
        return lines if lines is not None and fused.fits(lines) else None

    def _chosen_rows(self, name: str, parameter: Tensor, dtype: torch.dtype, wanted: Tensor) -> Tensor:
        places = self.stored.support.places(name, wanted)
        if name not in self._chosen:
            entries = self.stored.support.entries(name, parameter)
            perturbed = torch.empty_like(entries, dtype=dtype)
            Sweep(self.blocks(name), entries, NOTHING, self.lines((self.index,)), [perturbed]).take()
            self._chosen[name] = perturbed.view(-1, parameter.shape[1])
        return self._chosen[name][places]

    def _filled(self, name: str, parameter: Tensor) -> Tensor:
        """A whole parameter, perturbed; what is pending is written in the same pass."""

        def fresh(scratch: Scratch) -> Tensor:
            return scratch.like(parameter, self.engine.reads or parameter.dtype)

        def make(update: Update, lines: list[Drawn], targets: list[Tensor]) -> Sweep:
            vectors = [target.view(-1) for target in targets]
            return Sweep(self.blocks(name), parameter.detach().flatten(), update, lines, vectors)

        return self.fill(name, fresh, make)

    def fill(
        self, name: str, fresh: Callable[[Scratch], Tensor], make: Callable[..., Job], wanted: Tensor | None = None
    ) -> Tensor:
        """A target that make(update, lines, targets) fills: all of a parameter, or its rows `wanted`."""
        update, finish = self.engine.pending_with(name)
        target = fresh(self._scratch)
        self.take(name, make(update, self.lines((self.index,)), [target]))
        finish()
        return target

    def take(self, name: str, job: Job) -> None:
        """Do the job of a parameter on this thread's share of torch's threads."""
        in_parallel(job.take, len(self.blocks(name)), self.stored.parameters[name].device)

    def blocks(self, name: str) -> Sequence[Block]:
        """The blocks of a parameter."""
        return self.stored.layout.blocks_of[name]

    def lines(self, points: Sequence[int]) -> list[Drawn]:
        """The directions, with their amounts at these points."""
        return [Drawn(draw, [self.amounts[p][i] for p in points]) for i, draw in enumerate(self.draws)]


class _Reading(dict[str, Any]):
    """A module's parameters, each passed through `read` when the module looks it up."""

    def __init__(self, parameters: dict[str, Any], read: Callable[[Any], Any]) -> None:
        super().__init__(parameters)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        return self._read(super().__getitem__(name))
