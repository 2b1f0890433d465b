"""ModuleSpace: the parameters of a torch module, displaced in place."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zobench.combination import Combination, Line
from zobench.groups import UNIFORM, Groups
from zobench.keys import derive
from zobench.law import Direction, Law
from zobench.layout import CPU
from zobench.naming import require_known
from zobench.numbers import real
from zobench.plan import CURRENT, SLOPE, Plan
from zobench.space.closure import evaluate, loss_and_slope, require_reproducible
from zobench.space.elementwise import Elementwise, update
from zobench.space.motion import Motion, motion
from zobench.space.slope import dual, dual_numbers
from zobench.space.space import Direction as Rule
from zobench.space.space import Functions, Space, require_finite
from zobench.space.support import Rows, Support
from zobench.space.sweep import Change, Drawn, Moved, Sweep, Update, run
from zobench.space.threads import survive_forks

Displacement = dict[Line, float]


@dataclass(frozen=True, eq=False)
class Step:
    """A step: by how much along each direction, and how much of what decays is taken away."""

    amounts: Displacement = field(default_factory=dict)
    shrink: float = 0.0
    groups: Groups = UNIFORM


ROUNDING = ("nearest", "stochastic")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
SAMPLE = 4096
Result = TypeVar("Result")
TORN = "a sweep was interrupted, so that part of the parameters are displaced: load them again"


class ModuleSpace(Space):
    """The trainable parameters x of a module, moved in place (x <- x + a u) and never copied.

    A two-point step takes three sweeps over them: to the first point, to the second, and back fused with the update.
    Losses leave the module at the last point; step_ or settle_ brings it back, and so does any exception of the loss.
    Tied weights are one segment, frozen ones none. f() returns the scalar loss of the module as it stands, or
    per-example losses, which are averaged in float32 or better.

    Raises:
        ValueError: no trainable parameter, or one that is complex or of 8 bits, or on the meta device, or with gaps or
            repeated entries in memory (any order of the dimensions will do: directions follow the logical order of the
            entries, so that the memory format changes no number).
    """

    reads: torch.dtype | None = None
    rounding = "nearest"

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        survive_forks()
        self.module = module
        self._parameters = _trainable(module)
        self._whole = self._support = Support.whole(self._parameters)
        self.layout = self._support.layout
        self._displacement: Displacement = {}
        self._directions: dict[Line, Direction] = {}
        self._bound: dict[tuple[Law, int], Law] = {}
        self._trusted = self._torn = False
        self.sweeps = 0

    def restrict(self, rows: Mapping[str, Rows]) -> None:
        """Let directions live on these rows of these matrices, and on all of every other parameter, until told anew.

        A loss that reads no other row of them does not notice the difference: its gradient is zero there, so that the
        estimate keeps its mean and loses the noise of the other rows, which then do not move (but decay as before).
        The layout becomes that of the smaller space. Restrict before the plan of each minibatch, and before its step is
        replayed; `{}` lifts it.

        Raises:
            ValueError: a name is no trainable matrix, or a row is out of range.
        """
        self._undisplace()
        self._support = self._whole.restricted(rows)
        self.layout = self._support.layout
        self._directions, self._bound = {}, {}

    def losses(self, f: Functions, plan: Plan) -> Tensor:
        """Return the plan's answers, float64 (n, m), and leave the module at the last of its points.

        Raises:
            ValueError: the plan is batched, or f is not reproducible: it is called twice more before the first plan
                that meets the module in training mode. In evaluation mode call `require_reproducible` once yourself.
                Or the slope is asked for of an f that torch does not differentiate forward.
            RuntimeError: a sweep was interrupted before; the parameters are torn.
        """
        loss = plan.function(f)

        def evaluated() -> Tensor:
            self._require_trusted(loss)
            return self._slopes(loss, plan) if plan.asks == SLOPE else self._visit(partial(self._look, loss), plan)

        return self._at_base(plan, evaluated)

    def walk_(self, plan: Plan) -> None:
        """Move to the points of the plan as `losses` does, so that the parameters round as they did then."""
        if plan.asks == SLOPE:
            self._at_base(plan, self.settle_)
        else:
            self._at_base(plan, lambda: self._visit(self._walk, plan))

    def reading(self) -> AbstractContextManager[None]:
        """Return the context in which any forward reads the parameters as those of a plan do, unperturbed."""
        self.settle_()
        return nullcontext()

    def _at_base(self, plan: Plan, do: Callable[[], Result]) -> Result:
        """What `do` returns where the parameters are the plan's base point."""
        if plan.batch:
            raise ValueError(f"a module holds one point, but the plan has batch {plan.batch}: ask with batch=()")
        try:
            self._keep(plan)
            if plan.base != CURRENT:
                return self._at_snapshot(plan, do)
            self._bind(*self._laws(plan))
            return do()
        except BaseException:
            if not self._torn:
                self.settle_()
            raise

    def _at_snapshot(self, plan: Plan, do: Callable[[], Result]) -> Result:
        """What `do` returns at a snapshot; the current parameters come back exactly, from a copy."""
        there, here = self.snapshot(plan.base), self._copied()
        self._put(there)
        try:
            self._bound = {}
            self._bind(*self._laws(plan))
            return do()
        finally:
            self.settle_()
            self._put(here)
            self._bound = {}

    def _laws(self, plan: Plan) -> set[tuple[Law, int]]:
        lines = (line for i in range(plan.offsets.shape[-2]) for line in plan.line(i, self.layout.dim))
        return {(law, key) for law, key, _ in lines}

    def _copied(self) -> list[Tensor]:
        self.settle_()
        return [p.detach().clone() for p in self._parameters.values()]

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for p, value in zip(self._parameters.values(), values, strict=True):
            p.copy_(value)

    def _visit(self, look: Callable[[list[Displacement]], list[float]], plan: Plan) -> Tensor:
        losses = torch.empty(plan.offsets.shape, dtype=torch.float64, device=CPU)
        if any(map(any, plan.is_base)):
            (losses[:],) = look([{}])
        for i, row in enumerate(plan.offsets.tolist()):
            line = {name: float(amount) for name, amount in plan.line(i, self.layout.dim).items()}
            apart = [k for k, is_base in enumerate(plan.is_base[i]) if not is_base]
            points: list[Displacement] = [{name: row[k] * amount for name, amount in line.items()} for k in apart]
            losses[i, apart] = torch.tensor(look(points), dtype=torch.float64, device=CPU)
        return losses

    def _slopes(self, f: Callable[[], Any], plan: Plan) -> Tensor:
        """Loss and slope of each line; the module stays where it is."""
        self.settle_()
        found = []
        for i in range(plan.offsets.shape[-2]):
            ((line, unit),) = plan.line(i, self.layout.dim).items()
            self._directions = {line: self._direction(line)}
            found.append(self._slope(f, Drawn(self._directions[line], (float(unit),))))
        return torch.tensor(found, dtype=torch.float64, device=CPU)

    def _slope(self, f: Callable[[], Any], line: Drawn) -> list[float]:
        """Loss and slope, every parameter carrying its part of the direction as a tangent."""
        with dual_numbers():
            for name, p in self._sharing():
                tangent = self._support.tangent(name, line).view_as(p)
                p.copy_(dual(p.detach(), tangent))  # which writes its own values
            return loss_and_slope(f)

    def _sharing(self) -> list[tuple[str, nn.Parameter]]:
        """Every parameter of the module whose memory is that of a segment, with the segment's name."""
        names = {(p.data_ptr(), p.numel()): name for name, p in self._parameters.items()}
        owned = ((names.get((p.data_ptr(), p.numel())), p) for p in self.module.parameters())
        sharing = [(name, p) for name, p in owned if name is not None]
        for name, p in sharing:
            require_alike(name, self._parameters[name], p)
        return sharing

    def _look(self, f: Callable[[], Any], points: list[Displacement]) -> list[float]:
        """The losses of points of one line, one after the other."""
        found = []
        for point in points:
            self._move_to(point)
            found.append(evaluate(f))
        return found

    def _walk(self, points: list[Displacement]) -> list[float]:
        """Go where `_look` goes."""
        for point in points:
            self._move_to(point)
        return [math.nan] * len(points)

    def step_(
        self, combination: Combination, scale: float = 1.0, shrink: float = 0.0, groups: Groups = UNIFORM
    ) -> None:
        """Replace x by (1 - p d shrink) x + p scale * combination, in the sweep that also restores x."""
        self._move_to({}, Step(self._moved(combination, scale), shrink, groups))

    def update_(
        self,
        gradients: Sequence[Combination],
        direction: Rule,
        scale: float = 1.0,
        shrink: float = 0.0,
        groups: Groups = UNIFORM,
    ) -> None:
        """Replace x by (1 - p d shrink) x + p scale * direction(block, x, gradients), in a sweep of its own after the
        one that restores x; it draws every direction of the gradients once.

        Raises:
            ValueError: directions are restricted to some rows.
        """
        if self._support.rows:
            raise ValueError(
                f"directions are restricted to rows of {sorted(self._support.rows)}, and an element-wise rule steps "
                "all of them: lift the restriction (--rows all)"
            )
        lines = [self._moved(gradient, 1.0) for gradient in gradients]
        self.settle_()
        self.sweeps += 1
        drawn = [[(self._direction(line), amount) for line, amount in each.items()] for each in lines]
        rounding = self._rounding_key(lines[-1])
        self._torn = True
        update(self._support, Elementwise(drawn, direction, scale, shrink, groups, rounding))
        self._torn = False

    def motion(
        self, combination: Combination, scale: float = 1.0, shrink: float = 0.0, groups: Groups = UNIFORM
    ) -> Motion:
        """Return what step_ with these arguments would do to the entries as they are stored; nothing is written. Cost:
        one sweep, no loss.
        """
        self.settle_()
        change = self._change(Step(self._moved(combination, scale), real("shrink", shrink), groups))
        return motion(self._support, dict.fromkeys(self._parameters, change))

    def drawn(self, combination: Combination) -> list[tuple[Direction, float]]:
        """Return the directions of a combination with their amounts, laws that read weights bound as in its plan."""
        return [(self._direction(line), amount) for line, amount in self._moved(combination, 1.0).items()]

    def _moved(self, combination: Combination, scale: float) -> Displacement:
        try:
            require_finite(combination)
        except FloatingPointError:
            self.settle_()
            raise
        scale = real("scale", scale)
        total: Displacement = {}
        self._bind(*((term.law, term.key) for term in combination.terms))
        for line, coefficient in combination.lines:
            total[line] = total.get(line, 0.0) + float(coefficient)
        return {line: scale * amount / line[0].unit(self.layout.dim) for line, amount in total.items()}

    def _change(self, step: Step) -> Change:
        moved = [Moved(self._direction(line), 0.0, 0.0, amount) for line, amount in step.amounts.items() if amount]
        return Change(step.shrink, moved, self._rounding_key(step.amounts), step.groups)

    def _round(self, rounding: str) -> None:
        """Round steps to the nearest, or those of bfloat16 parameters at random."""
        require_known(rounding, ROUNDING, "rounding")
        if rounding == "stochastic" and any(p.dtype == torch.float16 for p in self._parameters.values()):
            raise ValueError("rounding is stochastic, but parameters are float16: hold them in bfloat16 or float32")
        self.rounding = rounding

    def _rounding_key(self, step: Displacement) -> int | None:
        """The key of a step's random rounding; None if it is rounded to the nearest."""
        return None if self.rounding == "nearest" else derive("rounding", *(key for _, key, _ in step))

    def dense(self, combination: Combination) -> Tensor:
        """Return the combination as one float64 vector, segments in the layout's order."""
        total = torch.zeros(self.layout.dim, dtype=torch.float64, device=CPU)
        for line, amount in self._moved(combination, 1.0).items():
            draw = self._direction(line)
            for block in self.layout.blocks:
                u = draw(block)
                if u is not None:
                    total[block.offset : block.offset + block.size].add_(u.cpu(), alpha=amount)
        return total

    def dot(self, combination: Combination) -> float:
        """Return the inner product of the combination with the parameters' .grad, block by block, in float64."""
        total = 0.0
        for line, amount in self._moved(combination, 1.0).items():
            draw = self._direction(line)
            for block in self.layout.blocks:
                name, u = block.segment.name, draw(block)
                gradient = self._parameters[name].grad
                if gradient is not None and u is not None:
                    part = self._support.entries(name, gradient)[block.start : block.stop].double() @ u.double()
                    total += amount * float(part)
        return total

    def settle_(self) -> None:
        """Bring the module back from the last point of a plan."""
        self._move_to({})

    def _undisplace(self) -> None:
        """Make the stored parameters those that directions were added to."""
        self.settle_()

    def vector(self) -> Tensor:
        """Return a copy of the parameters as one float64 vector, in the layout's order: for tests and small models.

        Raises:
            RuntimeError: a sweep was interrupted before; the parameters are torn.
        """
        if self._torn:
            raise RuntimeError(TORN)
        return torch.cat([p.detach().flatten().double().cpu() for p in self._parameters.values()])

    def unresolved_share(self, displacement: float) -> float:
        """Return the share of entries that a displacement leaves unmoved in the dtype that f reads, from a sample of
        each segment.
        """
        unmoved = 0.0
        for p in self._parameters.values():
            sample, dtype = p.detach().reshape(-1)[:SAMPLE], self.reads or p.dtype
            unmoved += float(((sample + displacement).to(dtype) == sample.to(dtype)).double().mean()) * p.numel()
        return unmoved / sum(p.numel() for p in self._parameters.values())

    def _move_to(self, target: Displacement, step: Step | None = None) -> None:
        back = {line: -amount for line, amount in self._displacement.items()}
        if self._torn:
            raise RuntimeError(TORN)
        self._sweep(back, target, step or Step())
        self._displacement, self._torn = target, False

    def _sweep(
        self,
        back: Displacement,
        forth: Displacement,
        step: Step,
        names: Iterable[str] | None = None,
    ) -> None:
        """Replace x by keep * (x + back) + forth + p * step in one pass over these parameters or all, drawing each
        block once.
        """
        on = step.amounts
        amounts = {line: (back.get(line, 0.0), forth.get(line, 0.0), on.get(line, 0.0)) for line in back | forth | on}
        lines = [line for line, sizes in amounts.items() if sum(sizes) or step.shrink or line in on]
        if not lines and not step.shrink:
            return
        self.sweeps += 1
        self._directions = {line: self._direction(line) for line in lines}
        rounding = self._rounding_key(step.amounts) if step.amounts or step.shrink else None
        moved = [Moved(self._directions[line], *amounts[line]) for line in lines]
        change = Change(step.shrink, moved, rounding, step.groups)
        self._torn = True  # until the sweep is whole and noted
        self._write(self._parameters if names is None else names, self._support, change)

    @torch.no_grad()
    def _write(self, names: Iterable[str], support: Support, change: Change) -> None:
        """Change these parameters."""
        cut = support.layout.blocks_of
        updates = {name: change.of(cut[name][0].segment) for name in names}
        in_place = [name for name in updates if not support.copies(name)]
        run([Sweep(cut[name], self._parameters[name].detach().view(-1), updates[name]) for name in in_place])
        for name in updates:  # one by one, so that one copy at a time is held
            if support.copies(name):
                self._write_copy(name, support, updates[name])

    def _write_copy(self, name: str, support: Support, update: Update) -> None:
        """Change a parameter through a copy of its entries."""
        parameter = self._parameters[name].detach()
        entries = support.entries(name, parameter)
        run([Sweep(support.layout.blocks_of[name], entries, update)])
        if name not in support.rows:
            parameter.copy_(entries.view(parameter.shape))
            return
        if update.keep != 1.0:
            whole = parameter.flatten()
            run([Sweep(self._whole.layout.blocks_of[name], whole, update._replace(lines=()))])
            parameter.copy_(whole.view(parameter.shape))
        parameter[support.rows[name]] = entries.view(-1, parameter.shape[1])

    def _direction(self, line: Line) -> Direction:
        """The line's direction, from the last sweep if it was there: a law that needs a norm looks for it once."""
        law, key, index = line
        bound = self._bound.get((law, key), law)
        return self._directions.get(line) or bound.direction(key, index, self.layout, ())

    def _bind(self, *wanted: tuple[Law, int]) -> None:
        """Let laws that read the undisplaced parameters do so, unless they have for these keys; forget the others."""
        reading = [each for each in wanted if each[0].reads_weights]
        if any(each not in self._bound for each in reading):
            self.settle_()
            known, stored = self._bound, self._support.stored
            self._bound = {each: known.get(each) or each[0].bind(self.layout, stored) for each in reading}

    def _require_trusted(self, f: Callable[[], Any]) -> None:
        if not self._trusted and any(m.training for m in self.module.modules()):
            require_reproducible(f)
            self._trusted = True


def _trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """The trainable parameters under their first names; those that share memory appear once."""
    found: dict[str, nn.Parameter] = {}
    ranges: dict[tuple[int, int, int], str] = {}
    for name, p in module.named_parameters():
        if not p.requires_grad or p.numel() == 0:
            continue
        _require_stored(name, p)
        start = p.storage_offset()
        memory = (p.untyped_storage().data_ptr(), int(start), int(start) + p.numel())
        if memory not in ranges:
            _require_disjoint(name, memory, ranges)
            ranges[memory] = name
            found[name] = p
    if not found:
        raise ValueError("the module has no trainable parameter: set requires_grad=True on those to be tuned")
    return found


def _require_stored(name: str, p: Tensor) -> None:
    if p.is_meta:
        raise ValueError(f"parameter {name!r} is on the meta device, without values: load the weights first")
    if p.dtype not in DTYPES:
        raise ValueError(f"parameter {name!r} is {p.dtype}: give real floating-point parameters of 16 bits or more")
    length = 1
    for stride, size in sorted((stride, size) for stride, size in zip(p.stride(), p.shape, strict=True) if size > 1):
        if stride != length:
            raise ValueError(
                f"parameter {name!r} has gaps or repeated entries in memory (shape {tuple(p.shape)}, strides "
                f"{p.stride()}): replace it by a contiguous copy first"
            )
        length *= size


def require_alike(name: str, first: Tensor, other: Tensor) -> None:
    """Raise ValueError if a parameter shares the memory of `name` in another shape or order."""
    if first.shape != other.shape or first.stride() != other.stride():
        raise ValueError(
            f"a parameter shares the memory of {name!r} as {tuple(other.shape)} with strides {other.stride()}: tie "
            "equal shapes, and transpose where the weight is used"
        )


def _require_disjoint(name: str, memory: tuple[int, int, int], ranges: dict[tuple[int, int, int], str]) -> None:
    storage, start, stop = memory
    for (other, first, last), owner in ranges.items():
        if other == storage and start < last and first < stop:
            raise ValueError(f"parameters {owner!r} and {name!r} overlap in memory but are not equal: copy one")
