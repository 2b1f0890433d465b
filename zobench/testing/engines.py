"""check_space and check_engine: points, steps and what is left of them on modules of several shapes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from zobench.combination import Combination, Term
from zobench.law import Coordinate, Gaussian, Law, Orthogonal
from zobench.layout import CPU
from zobench.plan import Plan
from zobench.space import Engine, ModuleSpace
from zobench.testing.check import Check, Level, run
from zobench.testing.modules import ModuleShape, Shaped, shapes
from zobench.testing.report import Finding, Report

MakeSpace = Callable[[torch.nn.Module], ModuleSpace]
LAWS: tuple[Law, ...] = (Gaussian(), Coordinate(), Orthogonal())
OFFSETS = ((0.1, -0.1), (0.0, 0.2))
CLOSE, ROUNDING = 1e-9, 1e-12


class Spaces(NamedTuple):
    """What is checked: spaces of modules, and steps in them along directions of `laws`."""

    make: MakeSpace
    laws: tuple[Law, ...] = LAWS

    def each(self) -> Iterator[tuple[ModuleShape, Shaped, ModuleSpace]]:
        """Yield a module of each shape in its space."""
        for shape in shapes():
            module = shape()
            yield shape, module, self.make(module)


def _gathers(space: ModuleSpace) -> bool:
    """Whether the engine evaluates points of several lines in one call of the loss."""
    return type(space.engine).losses_of_lines is not Engine.losses_of_lines


def _plan(law: Law, key: int) -> Plan:
    offsets = torch.tensor(OFFSETS, dtype=torch.float64, device=CPU)
    return Plan(law, key, offsets, torch.ones_like(offsets))


def _direction(space: ModuleSpace, plan: Plan, i: int) -> Tensor:
    """What an offset of 1 moves along line i, dense."""
    unit = plan.law.unit(space.layout.dim)
    coefficients = torch.zeros(i + 1, dtype=torch.float64, device=CPU)
    coefficients[i] = unit**2
    return space.dense(Combination((Term(plan.law, plan.key, coefficients),)))


def _loss_at(shape: ModuleShape, x: Tensor) -> float:
    """The loss of a fresh module whose trainable parameters are x."""
    module = shape()
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.copy_(x[: p.numel()].view_as(p))
                x = x[p.numel() :]
    return float(module.loss())


def points(of: Spaces, level: Level) -> Finding:
    """Losses of a plan against those of fresh modules at its points."""
    for shape, module, space in of.each():
        x = space.vector()
        for key, law in enumerate(of.laws):
            plan = _plan(law, key)
            losses = space.losses(module.loss, plan)
            for i, row in enumerate(OFFSETS):
                u = _direction(space, plan, i)
                for k, offset in enumerate(row):
                    wanted = _loss_at(shape, x + offset * u)
                    if not abs(float(losses[i, k]) - wanted) < CLOSE * (1 + abs(wanted)):
                        sentence = f"the loss at x + {offset} u_{i} is {float(losses[i, k]):.12g}, not {wanted:.12g}"
                        return Finding(sentence, False, f"{shape}, {law!r}", f"key = {key}")
    return Finding("losses are those at x + a u", True)


def calls(of: Spaces, level: Level) -> Finding:
    """How often the loss is called, the base point once; an engine that gathers points may call it less."""
    for shape, module, space in of.each():
        seen: list[int] = []

        def loss(module: Shaped = module, seen: list[int] = seen) -> Tensor:
            seen.append(1)
            return module.loss()

        plan = _plan(of.laws[0], 1)
        space.losses(loss, plan)
        if not (0 < len(seen) < plan.queries and _gathers(space)) and len(seen) != plan.queries:
            return Finding(f"{len(seen)} calls of the loss for {plan.queries} points", False, str(shape), "key = 1")
    return Finding("the loss is called once a point, or once for several", True)


def restored(of: Spaces, level: Level) -> Finding:
    """The parameters after losses, and after an error of the loss."""
    for shape, module, space in of.each():
        before, others = space.vector(), _untrained(module)
        space.losses(module.loss, _plan(of.laws[0], 1))
        space.settle_()
        far = float((space.vector() - before).abs().max())
        try:
            space.losses(_Failing(module, 1 if _gathers(space) else 2), _plan(of.laws[0], 2))
        except ZeroDivisionError:
            far = max(far, float((space.vector() - before).abs().max()))
        else:
            return Finding("an error of the loss is swallowed", False, str(shape), "key = 2")
        if not far < ROUNDING:
            return Finding(f"parameters are {far:.2g} away from x after settle_ or an error", False, str(shape))
        if not all(torch.equal(a, b) for a, b in zip(others, _untrained(module), strict=True)):
            return Finding("a frozen parameter or a buffer moved", False, str(shape))
    return Finding("parameters are x again, after an error too", True)


class _Failing:
    """A loss that fails at one of its calls."""

    def __init__(self, module: Shaped, call: int) -> None:
        self.module, self.left = module, call

    def __call__(self) -> Tensor:
        self.left -= 1
        if not self.left:
            raise ZeroDivisionError("planted")
        return self.module.loss()


def _untrained(module: Shaped) -> list[Tensor]:
    frozen = [p.detach().clone() for p in module.parameters() if not p.requires_grad]
    return frozen + [b.detach().clone() for b in module.buffers()]


def steps(of: Spaces, level: Level) -> Finding:
    """A step after losses, and one alone."""
    for shape, module, space in of.each():
        for key, law in enumerate(of.laws):
            x = space.vector()
            gradient = Combination((Term(law, key, torch.tensor([0.5, -1.5], dtype=torch.float64, device=CPU)),))
            wanted = x - 0.1 * space.dense(gradient)
            for looked in (True, False):
                if looked:
                    space.losses(module.loss, _plan(law, key))
                space.step_(gradient, -0.1)
                far = float((space.vector() - wanted).abs().max())
                if not far < ROUNDING * 10:
                    sentence = f"x after a step is {far:.2g} away from x + scale sum_i c_i u_i"
                    return Finding(sentence, False, f"{shape}, {law!r}", f"key = {key}")
                wanted = wanted - 0.1 * space.dense(gradient)
    return Finding("x <- x + scale sum_i c_i u_i", True)


def pending(of: Spaces, level: Level) -> Finding:
    """The loss that follows a step sees it, and so does a forward while reading."""
    for shape, module, space in of.each():
        gradient = Combination((Term(of.laws[0], 3, torch.tensor([1.0], dtype=torch.float64, device=CPU)),))
        x = space.vector() - 0.1 * space.dense(gradient)
        space.step_(gradient, -0.1)
        plan = _plan(of.laws[0], 4)
        loss, wanted = float(space.losses(module.loss, plan)[1, 0]), _loss_at(shape, x)
        with space.reading():
            read = float(module.loss())
        for name, value in (("the loss after a step", loss), ("a forward in reading()", read)):
            if not abs(value - wanted) < CLOSE * (1 + abs(wanted)):
                return Finding(f"{name} is {value:.12g}, not {wanted:.12g}", False, str(shape), "key = 3")
    return Finding("losses and forwards after a step are those at the new x", True)


def refused(of: Spaces, level: Level) -> Finding:
    """Steps along NaN and along infinity."""
    for shape, module, space in of.each():
        before = space.vector()
        for bad in (math.nan, math.inf):
            coefficients = torch.tensor([1.0, bad], dtype=torch.float64, device=CPU)
            space.losses(module.loss, _plan(of.laws[0], 1))
            try:
                space.step_(Combination((Term(of.laws[0], 1, coefficients),)))
            except FloatingPointError:
                if float((space.vector() - before).abs().max()) < ROUNDING:
                    continue
            return Finding(f"a step along {bad} moves parameters, or is not refused", False, str(shape))
    return Finding("FloatingPointError, and x as it was", True)


def replayed(of: Spaces, level: Level) -> Finding:
    """Steps with losses, and steps with `replay_` in their place, in float32 where the way to a point rounds."""
    shape = ModuleShape(tied=True, dtype=torch.float32)
    ends = []
    for walks in (False, True):
        module = shape()
        space = of.make(module)
        for key in range(4):
            plan = _plan(of.laws[0], key)
            if walks:
                space.replay_(plan)
            else:
                space.losses(module.loss, plan)
            space.step_(
                Combination((Term(of.laws[0], key, torch.tensor([0.3], dtype=torch.float64, device=CPU)),)), -0.1
            )
        space.settle_()
        ends.append(space.vector())
    holds = torch.equal(*ends)
    sentence = "equal to the bit" if holds else f"{float((ends[0] - ends[1]).abs().max()):.2g} apart"
    return Finding(sentence, holds, str(shape))


def tied(of: Spaces, level: Level) -> Finding:
    """Tied parameters and their memory after some steps."""
    shape = ModuleShape(tied=True, strided=True)
    module = shape()
    space, strides = of.make(module), [p.stride() for p in module.parameters()]
    space.step_(Combination((Term(of.laws[0], 3, torch.tensor([1.0], dtype=torch.float64, device=CPU)),)), -0.1)
    space.settle_()
    same = module.head is module.embedding and strides == [p.stride() for p in module.parameters()]
    return Finding("tied parameters are one, in the strides that they had", same, str(shape))


CHECKS: tuple[Check, ...] = (
    Check("points", "losses are f(x + a u_i)", points),
    Check("calls", "the loss is called once a point, the base point once, or once for several points", calls),
    Check("restored", "settle_, and an error of the loss, leave x; nothing else moves", restored),
    Check("steps", "x <- x + scale sum_i c_i u_i", steps),
    Check("pending", "losses and forwards after a step see it", pending),
    Check("refused", "a step along NaN or infinity is refused, and x as it was", refused),
    Check("replayed", "replay_ leaves the bits that losses leave", replayed),
    Check("tied", "tied parameters stay one, and in their strides", tied),
)
"""The checks of spaces and engines."""


def check_space(
    make: MakeSpace,
    level: str = "quick",
    expected_failures: Mapping[str, str] | None = None,
    laws: Sequence[Law] = LAWS,
) -> Report:
    """Return the report of every check of a space of a module, make(module) -> ModuleSpace: losses f(x + a u), steps x
    <- x + scale sum_i c_i u_i, on modules with tied and frozen parameters, buffers and strides. `laws` are those of
    u_i: an engine for some directions, as Batched for those of low rank, names them.

    Raises:
        CheckFailedError: a check failed, see `check_estimator`.
        UnknownNameError: no such level or check.
    """
    return run(_named(make), CHECKS, Spaces(make, tuple(laws)), level, expected_failures)


def _named(make: MakeSpace) -> str:
    return f"{type(space := make(ModuleShape()())).__name__}, engine {type(space.engine).__name__}"


def check_engine(
    make: Callable[[], Engine],
    level: str = "quick",
    expected_failures: Mapping[str, str] | None = None,
    laws: Sequence[Law] = LAWS,
) -> Report:
    """Return the report of every check of an engine, make() -> Engine, in a ModuleSpace: as `check_space`.

    Raises:
        CheckFailedError: a check failed, see `check_estimator`.
        UnknownNameError: no such level or check.
    """
    return check_space(lambda module: ModuleSpace(module, make()), level, expected_failures, laws)
