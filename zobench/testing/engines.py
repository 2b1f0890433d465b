"""check_space and check_engine: points, steps and what is left of them on modules of several shapes."""

from collections.abc import Callable, Iterator, Mapping

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


def _each(make: MakeSpace) -> Iterator[tuple[ModuleShape, Shaped, ModuleSpace]]:
    for shape in shapes():
        module = shape()
        yield shape, module, make(module)


def points(make: MakeSpace, level: Level) -> Finding:
    """Losses of a plan against those of fresh modules at its points."""
    for shape, module, space in _each(make):
        x = space.vector()
        for key, law in enumerate(LAWS):
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


def calls(make: MakeSpace, level: Level) -> Finding:
    """How often the loss is called, the base point once."""
    for shape, module, space in _each(make):
        seen: list[int] = []

        def loss(module: Shaped = module, seen: list[int] = seen) -> Tensor:
            seen.append(1)
            return module.loss()

        plan = _plan(Gaussian(), 1)
        space.losses(loss, plan)
        if len(seen) != plan.queries:
            return Finding(f"{len(seen)} calls of the loss for {plan.queries} points", False, str(shape), "key = 1")
    return Finding("the loss is called once a point", True)


def restored(make: MakeSpace, level: Level) -> Finding:
    """The parameters after losses, and after an error of the loss."""
    for shape, module, space in _each(make):
        before, others = space.vector(), _untrained(module)
        space.losses(module.loss, _plan(Gaussian(), 1))
        space.settle_()
        far = float((space.vector() - before).abs().max())
        try:
            space.losses(_Failing(module, 2), _plan(Gaussian(), 2))
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
    """A loss that fails at its second call."""

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


def steps(make: MakeSpace, level: Level) -> Finding:
    """A step after losses, and one alone."""
    for shape, module, space in _each(make):
        for key, law in enumerate(LAWS):
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


def pending(make: MakeSpace, level: Level) -> Finding:
    """The loss that follows a step sees it, and so does a forward while reading."""
    for shape, module, space in _each(make):
        gradient = Combination((Term(Gaussian(), 3, torch.tensor([1.0], dtype=torch.float64, device=CPU)),))
        x = space.vector() - 0.1 * space.dense(gradient)
        space.step_(gradient, -0.1)
        plan = _plan(Gaussian(), 4)
        loss, wanted = float(space.losses(module.loss, plan)[1, 0]), _loss_at(shape, x)
        with space.reading():
            read = float(module.loss())
        for name, value in (("the loss after a step", loss), ("a forward in reading()", read)):
            if not abs(value - wanted) < CLOSE * (1 + abs(wanted)):
                return Finding(f"{name} is {value:.12g}, not {wanted:.12g}", False, str(shape), "key = 3")
    return Finding("losses and forwards after a step are those at the new x", True)


def refused(make: MakeSpace, level: Level) -> Finding:
    """A step along NaN."""
    for shape, module, space in _each(make):
        before = space.vector()
        space.losses(module.loss, _plan(Gaussian(), 1))
        try:
            space.step_(
                Combination((Term(Gaussian(), 1, torch.tensor([float("nan")], dtype=torch.float64, device=CPU)),))
            )
        except FloatingPointError:
            far = float((space.vector() - before).abs().max())
            if far < ROUNDING:
                continue
        return Finding("a step along NaN moves parameters, or is not refused", False, str(shape))
    return Finding("FloatingPointError, and x as it was", True)


def replayed(make: MakeSpace, level: Level) -> Finding:
    """Steps with losses, and steps with `walk_` in their place, in float32 where the way to a point rounds."""
    shape = ModuleShape(tied=True, dtype=torch.float32)
    ends = []
    for walks in (False, True):
        module = shape()
        space = make(module)
        for key in range(4):
            plan = _plan(Gaussian(), key)
            if walks:
                space.walk_(plan)
            else:
                space.losses(module.loss, plan)
            space.step_(
                Combination((Term(Gaussian(), key, torch.tensor([0.3], dtype=torch.float64, device=CPU)),)), -0.1
            )
        space.settle_()
        ends.append(space.vector())
    holds = torch.equal(*ends)
    sentence = "equal to the bit" if holds else f"{float((ends[0] - ends[1]).abs().max()):.2g} apart"
    return Finding(sentence, holds, str(shape))


def tied(make: MakeSpace, level: Level) -> Finding:
    """Tied parameters and their memory after some steps."""
    shape = ModuleShape(tied=True, strided=True)
    module = shape()
    space, strides = make(module), [p.stride() for p in module.parameters()]
    space.step_(Combination((Term(Gaussian(), 3, torch.tensor([1.0], dtype=torch.float64, device=CPU)),)), -0.1)
    space.settle_()
    same = module.head is module.embedding and strides == [p.stride() for p in module.parameters()]
    return Finding("tied parameters are one, in the strides that they had", same, str(shape))


CHECKS: tuple[Check, ...] = (
    Check("points", "losses are f(x + a u_i)", points),
    Check("calls", "the loss is called once a point, the base point once", calls),
    Check("restored", "settle_, and an error of the loss, leave x; nothing else moves", restored),
    Check("steps", "x <- x + scale sum_i c_i u_i", steps),
    Check("pending", "losses and forwards after a step see it", pending),
    Check("refused", "a step along NaN is refused, and x as it was", refused),
    Check("replayed", "walk_ leaves the bits that losses leave", replayed),
    Check("tied", "tied parameters stay one, and in their strides", tied),
)
"""The checks of spaces and engines."""


def check_space(make: MakeSpace, level: str = "quick", expected_failures: Mapping[str, str] | None = None) -> Report:
    """Return the report of every check of a space of a module, make(module) -> ModuleSpace: losses f(x + a u), steps x
    <- x + scale sum_i c_i u_i, on modules with tied and frozen parameters, buffers and strides.

    Raises:
        CheckFailedError: a check failed, see `check_estimator`.
        UnknownNameError: no such level or check.
    """
    return run(_named(make), CHECKS, make, level, expected_failures)


def _named(make: MakeSpace) -> str:
    return f"{type(space := make(ModuleShape()())).__name__}, engine {type(space.engine).__name__}"


def check_engine(
    make: Callable[[], Engine], level: str = "quick", expected_failures: Mapping[str, str] | None = None
) -> Report:
    """Return the report of every check of an engine, make() -> Engine, in a ModuleSpace: as `check_space`.

    Raises:
        CheckFailedError: a check failed, see `check_estimator`.
        UnknownNameError: no such level or check.
    """
    return check_space(lambda module: ModuleSpace(module, make()), level, expected_failures)
