"""InForwardSpace: the parameters of a torch module, displaced where they are read instead of where they are stored."""

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zobench.layout import Block
from zobench.space.closure import evaluate, loss_and_slope
from zobench.space.lazy_rows import LazyRows, RowSweep
from zobench.space.meeting import Job, Meeting, Read, Work, in_two_threads
from zobench.space.module import TORN, Displacement, ModuleSpace, Step, require_alike
from zobench.space.scratch import Scratch
from zobench.space.slope import dual_numbers
from zobench.space.support import Support
from zobench.space.sweep import NOTHING, Change, Drawn, Sweep, Update
from zobench.space.tangents import Tangents
from zobench.space.threads import in_parallel


class Owed(NamedTuple):
    """A change that was asked for and is not yet written, and the entries that its directions live on."""

    change: Change
    support: Support


class InForwardSpace(ModuleSpace):
    """The trainable parameters x of a module; a displaced one, x + a u, exists only while the layer that reads it runs.

    While f() looks at a point, reading `layer.weight` gives weight + a u, drawn for that layer and freed after it, and
    an embedding is displaced in the rows that are looked up. The stored parameters are written by steps alone: they
    come back exactly in every dtype, whatever f raises, and one displaced parameter a point is held beside the module.
    Losses and steps are those of ModuleSpace, without the rounding that displacing in place leaves behind.

    With `paired` two points of a line are looked at together, each in a thread with half of torch's threads, and share
    one drawing of the direction: f must then be safe to call from two threads. With `deferred` a step is only noted,
    and written as the next look reads each parameter, in the same pass over it: call settle_ before the module is used
    elsewhere (evaluation, saving). Neither changes a bit of losses or parameters. A two-point step draws twice and
    walks over the parameters once; without `deferred` twice, and unpaired it draws three times.

    `rounding="stochastic"` rounds steps of bfloat16 parameters at random, without bias, by bits that the step's key
    names: to the nearest, a step below half a unit in the last place is lost. `reads=torch.bfloat16` holds the
    parameters as they are (float32, say: the master copy) and hands them to the layers in that dtype.

    f must read parameters as attributes of the modules that own them, as torch's layers do, in the thread that calls
    it.

    Raises:
        UnknownNameError: rounding is neither "nearest" nor "stochastic".
        ValueError: as ModuleSpace; stochastic rounding of float16; recurrent layers of torch in a paired space.
    """

    def __init__(
        self,
        module: nn.Module,
        paired: bool = False,
        deferred: bool = False,
        rounding: str = "nearest",
        reads: torch.dtype | None = None,
    ) -> None:
        super().__init__(module)
        self._round(rounding)
        self.paired, self.deferred, self.reads = paired, deferred, reads
        segments = {p.data_ptr(): name for name, p in self._parameters.items()}
        sharing = [p for p in module.parameters() if p.data_ptr() in segments and p.numel()]
        self._segments = {id(p): segments[p.data_ptr()] for p in sharing}
        for p in sharing:
            require_alike(self._segments[id(p)], self._parameters[self._segments[id(p)]], p)
        self._owners = [m for m in module.modules() if any(self._reads(p) for p in m._parameters.values())]
        tables = [m.weight for m in module.modules() if isinstance(m, nn.Embedding) and m.max_norm is None]
        self._tables = {self._segments[id(p)] for p in tables if id(p) in self._segments}
        if paired and any(isinstance(owner, nn.RNNBase) for owner in self._owners):
            raise ValueError("paired is True, but torch's recurrent layers keep what they read: give paired=False")
        self._on_cpu = all(segment.device.type == "cpu" for segment in self.layout.segments)
        self._owed: dict[str, list[Owed]] = {}
        self._paying = threading.Lock()
        self._tearing: set[str] = set()
        self._views = threading.local()

    def vector(self) -> Tensor:
        """Return a copy of the settled parameters as one float64 vector, in the layout's order."""
        self.settle_()
        return super().vector()

    def _undisplace(self) -> None:
        """Nothing is ever displaced; what is owed knows its own support."""

    def _reads(self, parameter: Any) -> bool:
        cast = self.reads is not None and parameter is not None and parameter.is_floating_point()
        return id(parameter) in self._segments or cast

    def _move_to(self, target: Displacement, step: Step | None = None) -> None:
        if self._torn:
            raise RuntimeError(TORN)
        if step is None:  # settle
            self._pay(self._parameters)
            return
        owed = Owed(self._change(step), self._support)
        if owed.change.lines or step.shrink:
            self.sweeps += 1
            self._owed = {name: [*self._owed.get(name, ()), owed] for name in self._parameters}  # all or none
        if not self.deferred:
            self._pay(self._parameters)

    def _pay(self, names: Sequence[str] | dict[str, Any]) -> None:
        """Write what these parameters are owed, first things first."""
        while due := {name: self._owed[name][0] for name in names if name in self._owed}:
            for owed in {id(owed): owed for owed in due.values()}.values():
                group = [name for name in due if due[name] is owed]
                self._torn = True  # until the sweep is whole
                self._write(group, owed.support, owed.change)
                for name in group:
                    self._paid(name)
                self._torn = False  # last: an interrupt must not leave a written update owed

    def _paid(self, name: str) -> None:
        left = self._owed.pop(name, [])[1:]
        if left:
            self._owed[name] = left

    def _owed_in_one(self, name: str) -> bool:
        """Whether what a parameter is owed can be written while it is displaced: one update, of whole matrices."""
        owed = self._owed.get(name, ())
        shared = not self.paired or len(self._support.layout.blocks_of[name]) > 1
        whole = name not in self._tables and not self._support.copies(name)
        return shared and whole and len(owed) == 1 and name not in owed[0].support.rows

    def _walk(self, points: list[Displacement]) -> list[float]:
        """Nothing moves; what is owed is paid, lest it pile up."""
        self.settle_()
        return [math.nan] * len(points)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """The context in which any forward of this thread reads the parameters in the dtype that plans read."""
        self.settle_()
        if self.reads is None:
            yield
            return
        with self._displaced():
            self._views.latest = _View(self, [{}], 0, None, Scratch())
            try:
                yield
            finally:
                self._views.latest = None

    def _look(self, f: Callable[[], Any], points: list[Displacement]) -> list[float]:
        """The losses of points of one line, two at a time where the space is paired."""
        together = 2 if self.paired and self._on_cpu else 1
        return [loss for k in range(0, len(points), together) for loss in self._look_at(f, points[k : k + together])]

    def _look_at(self, f: Callable[[], Any], points: list[Displacement]) -> list[float]:
        if self._torn:
            raise RuntimeError(TORN)
        self._directions = {line: self._direction(line) for line in points[0]}
        self._pay([name for name in self._owed if not (points[0] and self._owed_in_one(name))])
        meeting, together = Meeting() if len(points) == 2 else None, Scratch()

        def look(index: int) -> float:
            self._views.latest = _View(self, points, index, meeting, together)
            try:
                return evaluate(f)
            finally:
                self._views.latest = None
                if meeting:
                    meeting.leave(index)

        try:
            with self._displaced():
                return in_two_threads(look, partial(meeting.leave, 0)) if meeting else [look(0)]
        finally:
            self._torn = bool(self._tearing)

    def _slope(self, f: Callable[[], Any], line: Drawn) -> list[float]:
        """Loss and slope; a parameter's tangent exists only while the layer that reads it runs."""
        with dual_numbers(), self._displaced():
            self._views.latest = Tangents(self._support, self.reads, line)
            try:
                return loss_and_slope(f)
            finally:
                self._views.latest = None

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
        view: _View | Tangents | None = getattr(self._views, "latest", None)
        if view is None:
            return parameter
        if name is None:
            return parameter.to(self.reads) if self._reads(parameter) else parameter
        if name in self._tables or name in self._support.rows:
            dtype = self.reads or parameter.dtype
            return LazyRows(parameter, dtype, partial(view.rows, name), partial(view.whole, name))
        return view.whole(name)


class _View:
    """What one thread reads at its point: the parameters displaced by `points[index]`."""

    def __init__(
        self,
        space: InForwardSpace,
        points: list[Displacement],
        index: int,
        meeting: Meeting | None,
        together: Scratch,
    ) -> None:
        self.space, self.index, self.meeting, self.together = space, index, meeting, together
        lines = list(points[0])
        self.draws = [space._directions[line] for line in lines]
        self.amounts = [[point[line] for line in lines] for point in points]
        self._latest: tuple[str, Tensor] | None = None
        self._chosen: dict[str, Tensor] = {}
        self._scratch = Scratch()

    def whole(self, name: str) -> Tensor:
        """The displaced parameter; the latest is kept, as layers may read one twice."""
        stored = self.space._parameters[name]
        self.space._support.require_whole(name)
        if self._latest is None or self._latest[0] != name:
            self._latest = None  # its memory is free for the next one
            self._latest = (name, self._filled(name, stored))
        return self._latest[1]

    def rows(self, name: str, wanted: Tensor) -> Tensor:
        """The displaced rows of a table, in ascending order; blocks that hold none of them are not drawn."""
        stored = self.space._parameters[name].detach()
        dtype = self.space.reads or stored.dtype
        if name in self.space._support.rows:
            return self._chosen_rows(name, stored, dtype, wanted)
        wide = torch.promote_types(stored.dtype, dtype)
        if not self.draws:
            return stored[wanted].to(dtype)

        def fresh(_: Scratch) -> Tensor:
            return stored[wanted].to(wide)

        return self._shared(name, fresh, partial(RowSweep, self._blocks(name), wanted), wanted).to(dtype)

    def _chosen_rows(self, name: str, stored: Tensor, dtype: torch.dtype, wanted: Tensor) -> Tensor:
        places = self.space._support.places(name, wanted)
        if name not in self._chosen:
            entries = self.space._support.entries(name, stored)
            displaced = torch.empty_like(entries, dtype=dtype)
            Sweep(self._blocks(name), entries, NOTHING, self._lines((self.index,)), [displaced]).take()
            self._chosen[name] = displaced.view(-1, stored.shape[1])
        return self._chosen[name][places]

    def _filled(self, name: str, stored: Tensor) -> Tensor:
        """A whole parameter, displaced; what it is owed is written in the same pass."""

        def fresh(scratch: Scratch) -> Tensor:
            return scratch.like(stored, self.space.reads or stored.dtype)

        def make(update: Update, lines: list[Drawn], targets: list[Tensor]) -> Sweep:
            vectors = [target.view(-1) for target in targets]
            return Sweep(self._blocks(name), stored.detach().flatten(), update, lines, vectors)

        return self._shared(name, fresh, make)

    def _shared(
        self, name: str, fresh: Callable[[Scratch], Tensor], make: Callable[..., Job], wanted: Tensor | None = None
    ) -> Tensor:
        """A target that make(update, lines, targets) fills, for both points if the other thread reads the same."""
        parts, device = len(self._blocks(name)), self.space._parameters[name].device

        def take(job: Job) -> None:
            in_parallel(job.take, parts, device)

        def both() -> Work:
            update, finish = self._owed_with(name)
            targets = [fresh(self.together), fresh(self.together)]
            return Work(make(update, self._lines((0, 1)), targets), targets, finish)

        if self.meeting is not None and parts > 1:  # waiting for the other thread costs more than drawing a block
            mine = self.meeting.over(self.index, Read(name, wanted), both, take)
            if mine is not None:
                return mine
            self.meeting.wait_for(self.index, name)
            with self.space._paying:  # the other thread reads something else, or nothing any more
                self.space._pay([name])
        update, finish = self._owed_with(name)
        mine = fresh(self._scratch)
        take(make(update, self._lines((self.index,)), [mine]))
        finish()
        return mine

    def _owed_with(self, name: str) -> tuple[Update, Callable[[], None]]:
        """What a parameter is owed, and what to do when it is written with this look."""
        if name in self.space._tables or name not in self.space._owed:
            return NOTHING, lambda: None
        self.space._tearing.add(name)

        def finish() -> None:
            self.space._paid(name)
            self.space._tearing.discard(name)

        return self.space._owed[name][0].change.of(self._blocks(name)[0].segment), finish

    def _blocks(self, name: str) -> Sequence[Block]:
        return self.space._support.layout.blocks_of[name]

    def _lines(self, points: Sequence[int]) -> list[Drawn]:
        return [Drawn(draw, [self.amounts[p][i] for p in points]) for i, draw in enumerate(self.draws)]


class _Reading(dict[str, Any]):
    """A module's parameters, each passed through `read` when the module looks it up."""

    def __init__(self, parameters: dict[str, Any], read: Callable[[Any], Any]) -> None:
        super().__init__(parameters)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        return self._read(super().__getitem__(name))
