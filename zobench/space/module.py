"""ModuleSpace: the trainable parameters of a torch module, and the engine that lets a loss see their perturbations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zobench.combination import Combination
from zobench.groups import UNIFORM, Groups
from zobench.law import Direction, Law
from zobench.layout import CPU
from zobench.naming import require_known
from zobench.numbers import real
from zobench.plan import CURRENT, SLOPE, Plan
from zobench.random.keys import derive
from zobench.space.closure import loss_and_slope, queue, read, require_reproducible
from zobench.space.elementwise import Elementwise, update
from zobench.space.engine import Engine
from zobench.space.in_forward import InForward
from zobench.space.in_place import InPlace
from zobench.space.motion import Motion, motion
from zobench.space.paired import Paired
from zobench.space.shared import Shared
from zobench.space.slope import dual_numbers
from zobench.space.space import Direction as Rule
from zobench.space.space import Functions, Space, require_finite
from zobench.space.stored import Point, Step, Stored
from zobench.space.support import Rows
from zobench.space.sweep import Change, Drawn, Moved
from zobench.space.whole import WholeRule, step_of
from zobench.threads import survive_forks

ROUNDING = ("nearest", "stochastic")
SAMPLE = 4096
BASE: Point = {}
Result = TypeVar("Result")


class ModuleSpace(Space):
    """The trainable parameters x of a module. An `Engine` lets f see x + a u and writes steps; by default it moves
    them in place (x <- x + a u) and never copies them.

    In place a two-point step takes three sweeps over them: to the first point, to the second, and back fused with the
    update. Losses leave the module at the last point; step_ or settle_ brings it back, and so does any exception of the
    loss. Tied weights are one segment, frozen ones none. f() returns the scalar loss of the module as it stands, or
    per-example losses, which are averaged in float32 or better.

    Raises:
        ValueError: no trainable parameter, or one that is complex or of 8 bits, or on the meta device, or with gaps or
            repeated entries in memory (any order of the dimensions will do: directions follow the logical order of the
            entries, so that the memory format changes no number); or the engine serves another space, or cannot serve
            this module.
        TypeError: the engine is no Engine.
    """

    def __init__(self, module: nn.Module, engine: Engine | None = None) -> None:
        super().__init__()
        survive_forks()
        self.engine = _fresh(InPlace() if engine is None else engine)
        self.module, self.stored = module, Stored(module, self.engine.device)
        self.layout = self.stored.layout
        _require_rounding(self.engine.rounding, self.stored)
        self.engine.attach(self.stored)
        self.shared: Shared | None = None
        self._trusted = False

    def share(self, shared: Shared | None) -> None:
        """Evaluate the points of plans together with other ranks, from now on; None: alone. Every rank must then ask
        the same plans in the same order.
        """
        self.shared = shared

    @property
    def sweeps(self) -> int:
        """Passes over all parameters so far."""
        return self.stored.sweeps

    @property
    def reads(self) -> torch.dtype | None:
        """The dtype in which f reads parameters; None is their own."""
        return self.engine.reads

    @property
    def rounding(self) -> str:
        """How steps are rounded."""
        return self.engine.rounding

    def restrict(self, rows: Mapping[str, Rows]) -> None:
        """Let directions live on these rows of these matrices, and on all of every other parameter, until told anew.

        A loss that reads no other row of them does not notice the difference: its gradient is zero there, so that the
        estimate keeps its mean and loses the noise of the other rows, which then do not move (but decay as before).
        The layout becomes that of the smaller space. Restrict before the plan of each minibatch, and before its step is
        replayed; `{}` lifts it.

        Raises:
            ValueError: a name is no trainable matrix, or a row is out of range.
        """
        if self.engine.in_place:
            self.settle_()
        self.stored.restrict(rows)
        self.layout = self.stored.layout

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
            return self._slopes(loss, plan) if plan.asks == SLOPE else self._losses(loss, plan)

        return self._at_base(plan, evaluated)

    def replay_(self, plan: Plan) -> None:
        """Leave the parameters as `losses` does, so that they round as they did then."""
        self._at_base(plan, self.settle_ if plan.asks == SLOPE else partial(self._walk, plan))

    def reading(self) -> AbstractContextManager[None]:
        """Return the context in which any forward reads the parameters as those of a plan do, unperturbed."""
        self.settle_()
        return self.engine.reading()

    def _at_base(self, plan: Plan, do: Callable[[], Result]) -> Result:
        """What `do` returns where the parameters are the plan's base point."""
        if plan.batch:
            raise ValueError(f"a module holds one point, but the plan has batch {plan.batch}: ask with batch=()")
        self.stored.require_untorn()
        try:
            self._keep(plan)
            if plan.base != CURRENT:
                return self._at_snapshot(plan, do)
            self._bind(_laws(plan, self.layout.dim))
            return do()
        except BaseException:
            if not self.stored.torn:
                self.settle_()
            raise

    def _at_snapshot(self, plan: Plan, do: Callable[[], Result]) -> Result:
        """What `do` returns at a snapshot; the current parameters come back exactly, from a copy."""
        there, here = self.snapshot(plan.base), self._copied()
        self._put(there)
        try:
            self.stored.unbind()
            self._bind(_laws(plan, self.layout.dim))
            return do()
        finally:
            self.settle_()
            self._put(here)
            self.stored.unbind()

    def _bind(self, laws: set[tuple[Law, int]]) -> None:
        self.stored.bind(laws, self.settle_, self.snapshots)

    def _copied(self) -> list[Tensor]:
        self.settle_()
        return [p.detach().clone() for p in self.stored.parameters.values()]

    @torch.no_grad()
    def _put(self, values: list[Tensor]) -> None:
        for p, value in zip(self.stored.parameters.values(), values, strict=True):
            p.copy_(value)

    def _losses(self, f: Callable[[], Any], plan: Plan) -> Tensor:
        lines = list(_lines(plan, self.layout.dim))
        base = [[BASE]] if any(map(any, plan.is_base)) else []
        numbers = self._numbers(f, base + [points for _, _, points in lines])
        losses = torch.empty(plan.offsets.shape, dtype=torch.float64, device=CPU)
        if base:
            losses[:] = numbers.pop(0)
        places = [(i, k) for i, apart, _ in lines for k in apart]
        for place, number in zip(places, numbers, strict=True):
            losses[place] = number
        return losses

    def _numbers(self, f: Callable[[], Any], lines: list[list[Point]]) -> list[float]:
        if self.shared is not None:
            return self.shared.losses(self.engine, f, lines)
        by_line = self.engine.losses_of_lines(partial(queue, f), lines)
        return read([value for line in by_line for value in line])

    def _walk(self, plan: Plan) -> None:
        if any(map(any, plan.is_base)):
            self.engine.replay_([{}])
        for _, _, points in _lines(plan, self.layout.dim):
            self.engine.replay_(points)

    def _slopes(self, f: Callable[[], Any], plan: Plan) -> Tensor:
        """Loss and slope of each line; the module stays where it is."""
        self.settle_()
        jobs = [partial(self._slope, f, plan, i) for i in range(plan.offsets.shape[-2])]
        if self.shared is not None:
            numbers = self.shared.slopes(jobs)
        else:
            numbers = [number for job in jobs for number in job(loss_and_slope)]
        return torch.tensor(numbers, dtype=torch.float64, device=CPU).view(-1, 2)

    def _slope(self, f: Callable[[], Any], plan: Plan, i: int, ask: Callable[[Callable[[], Any]], list[Any]]) -> Any:
        """What `ask` returns of f, whose parameters carry the tangent of line i."""
        ((line, unit),) = plan.line(i, self.layout.dim).items()
        self.stored.prepare([line])
        with dual_numbers(), self.engine.tangents(Drawn(self.stored.direction(line), (float(unit),))):
            return ask(f)

    def step_(
        self, combination: Combination, scale: float = 1.0, shrink: float = 0.0, groups: Groups = UNIFORM
    ) -> None:
        """Replace x by (1 - p d shrink) x + p scale * combination, in the sweep that also restores x."""
        step = self.step_of(combination, scale, shrink, groups)
        self.stored.require_untorn()
        self.engine.step_(step)

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
        self._require_all_rows("an element-wise rule")
        lines = [self._amounts(gradient) for gradient in gradients]
        self.settle_()
        self.stored.sweeps += 1
        drawn = [[(self.stored.direction(line), amount) for line, amount in each.items()] for each in lines]
        rounding = self._rounding_key(lines[-1] if lines else {})  # a rule may look at x alone
        change = Elementwise(drawn, direction, scale, shrink, groups, rounding)
        with self.stored.writing():
            for names in self.engine.parts():
                update(self.stored.support, names, change)

    @torch.no_grad()
    def update_whole_(
        self,
        gradient: Combination,
        rule: WholeRule,
        scale: float = 1.0,
        shrink: float = 0.0,
        groups: Groups = UNIFORM,
    ) -> None:
        """Replace x by (1 - p d shrink) x + p scale * step, parameter by parameter, in a sweep of its own after the one
        that restores x. Holds one parameter, or the factors of one.

        Raises:
            ValueError: directions are restricted to some rows; or as of the contract.
        """
        self._require_all_rows("a rule on whole parameters")
        amounts = self._amounts(gradient)
        self.settle_()
        self.stored.sweeps += 1
        support, rounding = self.stored.support, self._rounding_key(amounts)
        drawn = [(self.stored.direction(line), amount) for line, amount in amounts.items()]
        with self.stored.writing():
            for name in chain.from_iterable(self.engine.parts()):
                x, blocks = support.entries(name, self.stored.parameters[name].detach()), self.layout.blocks_of[name]
                step = step_of(blocks[0].segment, blocks, x, drawn, rule)
                change = Change(shrink, [Moved(step, 0.0, 0.0, scale)], rounding, groups)
                self.stored.write_(change, [name])

    def _require_all_rows(self, who: str) -> None:
        rows = self.stored.support.rows
        if rows:
            raise ValueError(
                f"directions are restricted to rows of {sorted(rows)}, and {who} steps all of them: lift the "
                "restriction (--rows all)"
            )

    def motion(
        self, combination: Combination, scale: float = 1.0, shrink: float = 0.0, groups: Groups = UNIFORM
    ) -> Motion:
        """Return what step_ with these arguments would do to the entries as they are stored; nothing is written. Cost:
        one sweep, no loss; of more than 2^28 entries a sample of each tensor, see `Motion.sampled`.
        """
        self.settle_()
        change = self.stored.change(self.step_of(combination, scale, real("shrink", shrink), groups))
        return motion(self.stored.support, dict.fromkeys(self.stored.parameters, change))

    def drawn(self, combination: Combination) -> list[tuple[Direction, float]]:
        """Return the directions of a combination with their amounts, laws that read weights bound as in its plan."""
        return [(self.stored.direction(line), amount) for line, amount in self._amounts(combination).items()]

    def step_of(self, combination: Combination, scale: float, shrink: float, groups: Groups) -> Step:
        """Return the step that step_ with these arguments asks of the engine; errors as step_."""
        amounts = self._amounts(combination, scale)
        moving = {line: amount for line, amount in amounts.items() if amount}
        return Step(moving, shrink, groups, self._rounding_key(amounts))

    def _amounts(self, combination: Combination, scale: float = 1.0) -> Point:
        """By how much of each direction scale * combination moves; laws are bound for it."""
        try:
            require_finite(combination)
        except FloatingPointError:
            self.settle_()
            raise
        scale = real("scale", scale)
        total: dict[tuple[Law, int, int], float] = {}
        self._bind({(term.law, term.key) for term in combination.terms})
        for line, coefficient in combination.lines:
            total[line] = total.get(line, 0.0) + float(coefficient)
        return {line: scale * amount / line[0].unit(self.layout.dim) for line, amount in total.items()}

    def _rounding_key(self, amounts: Point) -> int | None:
        """The key of a step's random rounding; None if it is rounded to the nearest."""
        return None if self.rounding == "nearest" else derive("rounding", *(key for _, key, _ in amounts))

    def dense(self, combination: Combination) -> Tensor:
        """Return the combination as one float64 vector, segments in the layout's order."""
        total = torch.zeros(self.layout.dim, dtype=torch.float64, device=CPU)
        for draw, amount in self.drawn(combination):
            for block in self.layout.blocks:
                u = draw(block)
                if u is not None:
                    total[block.offset : block.offset + block.size].add_(u.cpu(), alpha=amount)
        return total

    def dot(self, combination: Combination) -> float:
        """Return the inner product of the combination with the parameters' .grad, block by block, in float64."""
        total = 0.0
        for draw, amount in self.drawn(combination):
            for block in self.layout.blocks:
                name, u = block.segment.name, draw(block)
                gradient = self.stored.parameters[name].grad
                if gradient is not None and u is not None:
                    term = self.stored.support.entries(name, gradient)[block.start : block.stop].double() @ u.double()
                    total += amount * float(term)
        return total

    def settle_(self) -> None:
        """Bring the module back from the last point of a plan, and write steps that are pending."""
        self.stored.require_untorn()
        self.engine.flush_()

    def vector(self) -> Tensor:
        """Return a copy of the parameters as one float64 vector, in the layout's order: for tests and small models. In
        place they are those of the last point.

        Raises:
            RuntimeError: a sweep was interrupted before; the parameters are torn.
        """
        self.stored.require_untorn()
        if not self.engine.in_place:
            self.settle_()
        return torch.cat([p.detach().flatten().cpu().double() for p in self.stored.parameters.values()])

    def unresolved_share(self, displacement: float) -> float:
        """Return the share of entries that a displacement leaves unmoved in the dtype that f reads, from a sample of
        each segment.
        """
        unmoved, parameters = 0.0, self.stored.parameters.values()
        for p in parameters:
            sample, dtype = p.detach().reshape(-1)[:SAMPLE], self.reads or p.dtype
            unmoved += float(((sample + displacement).to(dtype) == sample.to(dtype)).double().mean()) * p.numel()
        return unmoved / sum(p.numel() for p in parameters)

    def _require_trusted(self, f: Callable[[], Any]) -> None:
        if not self._trusted and any(m.training for m in self.module.modules()):
            require_reproducible(f)
            self._trusted = True


class InForwardSpace(ModuleSpace):
    """The trainable parameters x of a module; a perturbed one, x + a u, exists only while the layer that reads it runs.

    While f() looks at a point, reading `layer.weight` gives weight + a u, drawn for that layer and freed after it, and
    an embedding is perturbed in the rows that are looked up. The stored parameters are written by steps alone: they
    come back exactly in every dtype, whatever f raises, and one perturbed parameter a point is held beside the module.
    Losses and steps are those of ModuleSpace, without the rounding that perturbing in place leaves behind.

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
        self.paired, self.deferred = paired, deferred
        super().__init__(module, (Paired if paired else InForward)(deferred, rounding, reads))


def _laws(plan: Plan, dim: int) -> set[tuple[Law, int]]:
    lines = (line for i in range(plan.offsets.shape[-2]) for line in plan.line(i, dim))
    return {(law, key) for law, key, _ in lines}


def _lines(plan: Plan, dim: int) -> Iterator[tuple[int, list[int], list[Point]]]:
    """Each line with points that are not the base point: its number, their columns, the points."""
    for i, row in enumerate(plan.offsets.tolist()):
        line = {name: float(amount) for name, amount in plan.line(i, dim).items()}
        apart = [k for k, is_base in enumerate(plan.is_base[i]) if not is_base]
        if apart:
            yield i, apart, [{name: row[k] * amount for name, amount in line.items()} for k in apart]


def _fresh(engine: Engine) -> Engine:
    if not isinstance(engine, Engine):
        raise TypeError(f"engine is {engine!r}: give an Engine of zobench.space, such as InForward()")
    if hasattr(engine, "stored"):
        raise ValueError(f"this {type(engine).__name__} serves another space: give each space an engine of its own")
    return engine


def _require_rounding(rounding: str, stored: Stored) -> None:
    require_known(rounding, ROUNDING, "rounding")
    if rounding == "stochastic" and any(p.dtype == torch.float16 for p in stored.parameters.values()):
        raise ValueError("rounding is stochastic, but parameters are float16: hold them in bfloat16 or float32")
