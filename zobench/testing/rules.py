"""check_rule: what an update rule does with gradients, and with its memory."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from zobench.combination import Combination, Term
from zobench.law import Gaussian, Rademacher
from zobench.layout import CPU
from zobench.rule import UpdateRule
from zobench.space import FlatSpace, ModuleSpace, Space
from zobench.spelling import taken
from zobench.state import plain, restored, same, split
from zobench.testing.check import Check, Level, run
from zobench.testing.modules import ModuleShape
from zobench.testing.report import Finding, NotApplicableError, Report

MakeRule = Callable[..., UpdateRule]
STEPS, STOP, RATE = 6, 3, 1e-2
CLOSE = 1e-9


def gradient_of(step: int) -> Combination:
    """Return the gradient of a step: two terms, the second along a direction of the step before."""
    first = Term(Gaussian(), 100 + step, torch.tensor([0.5, -1.5], dtype=torch.float64, device=CPU))
    return Combination((first, Term(Rademacher(), 99 + step, torch.tensor([0.7], dtype=torch.float64, device=CPU))))


def _module_space() -> ModuleSpace:
    return ModuleSpace(ModuleShape(tied=True, frozen=True)())


def _flat() -> FlatSpace:
    space = _module_space()
    return FlatSpace(space.vector(), space.layout)


def _stepped(space: Space, rule: UpdateRule, steps: range, memory: Any = None) -> Any:
    memory = rule.init(space) if memory is None else memory
    for step in steps:
        memory = rule.apply_(space, gradient_of(step), memory)
    space.settle_()
    return memory


def kept(make: MakeRule, level: Level) -> Finding:
    """The memory as plain data after each step."""
    rule, space = make(lr=RATE), _flat()
    memory = rule.init(space)
    for step in range(STEPS):
        if not same(restored(plain(memory)), memory):
            return Finding(f"the memory {memory!r:.200} comes back as another", False, repr(rule), f"step {step}")
        memory = rule.apply_(space, gradient_of(step), memory)
    return Finding("every memory can be kept in a file", True)


def resumed(make: MakeRule, level: Level) -> Finding:
    """A run that is interrupted, and one that is not."""
    whole, part = _flat(), _flat()
    end = _stepped(whole, make(lr=RATE), range(STEPS))
    memory = copy.deepcopy(plain(_stepped(part, make(lr=RATE), range(STOP))))
    _stepped(_flat(), make(lr=RATE), range(1))  # another run meets nothing of this one
    memory = _stepped(part, make(lr=RATE), range(STOP, STEPS), restored(memory))
    holds = torch.equal(whole.x, part.x) and same(end, memory)
    sentence = "equal to the bit" if holds else f"x is {_far(whole.x, part.x)} away from that of the whole run"
    return Finding(sentence, holds, repr(make(lr=RATE)), f"interrupted after {STOP} of {STEPS} steps")


def downhill(make: MakeRule, level: Level) -> Finding:
    """The first step against its gradient."""
    space, rule = _flat(), make(lr=RATE)
    before = space.x.clone()
    _stepped(space, rule, range(1))
    along = float((space.x - before) @ space.dense(gradient_of(0)))
    return Finding(f"(x_1 - x_0) . g = {along:.3g}", along < 0, repr(rule))


def still(make: MakeRule, level: Level) -> Finding:
    """Steps at the rate 0."""
    space = _flat()
    before = space.x.clone()
    _stepped(space, make(lr=0.0), range(STEPS))
    far = _far(space.x, before)
    return Finding(f"x moves by {far}", far == 0, repr(make(lr=0.0)))


def skipped(make: MakeRule, level: Level) -> Finding:
    """A step that is not taken: another next step, and the rest of the memory as it was."""
    rule, space = make(lr=RATE), _flat()
    memory = _stepped(space, rule, range(2))
    before, x = copy.deepcopy(plain(memory)), space.x.clone()
    after = rule.skip(restored(before))
    if not torch.equal(x, space.x) or not rule.rate(after) >= 0:
        return Finding(f"after a skipped step the rate is {rule.rate(after)}", False, repr(rule))
    other = _flat()
    other.x.copy_(x)
    _stepped(space, rule, range(2, 3), memory)
    _stepped(other, rule, range(2, 3), after)
    far = _far(space.x, other.x)
    return Finding(f"the step after a skipped one is {far} away", far < CLOSE, repr(rule), "at a constant rate")


def held(make: MakeRule, level: Level) -> Finding:
    """Numbers of the memory for each weight: as many as declared; of a rule on matrices some, and no more than that."""
    rule, space = make(lr=RATE), _flat()
    memory = _stepped(space, rule, range(STEPS))
    tensors = [t for t in split(plain(memory))[1].values() if t.numel() > len(gradient_of(0).coefficients)]
    numbers = sum(t.numel() for t in tensors) / space.layout.dim
    holds = numbers == rule.held or (rule.at_most and 0 < numbers < rule.held)
    return Finding(f"{numbers:g} numbers a weight, {rule.held:g} declared", holds, repr(rule))


def module(make: MakeRule, level: Level) -> Finding:
    """The same steps on a vector and on a module."""
    flat, space = _flat(), _module_space()
    _stepped(flat, make(lr=RATE), range(STEPS))
    _stepped(space, make(lr=RATE), range(STEPS))
    far = _far(flat.x, space.vector())
    return Finding(f"{STEPS} steps end {far:.2g} apart", far < CLOSE, repr(make(lr=RATE)))


def decay(make: MakeRule, level: Level) -> Finding:
    """A gradient of 0, under weight decay."""
    options = taken(make, {"weight_decay": 0.5})
    if not options:
        raise NotApplicableError("it has no option weight_decay")
    decaying = make(lr=RATE, **options)
    space = _flat()
    before, nothing = space.x.clone(), gradient_of(0) * 0.0
    decaying.apply_(space, nothing, decaying.init(space))
    factors = torch.cat([
        torch.full((s.size,), 1 - RATE * 0.5 * decaying.groups.of(s).decay, dtype=torch.float64, device=CPU)
        for s in space.layout.segments
    ])  # fmt: skip
    far = _far(space.x, factors * before)
    return Finding(f"x is {far:.2g} away from (1 - lr wd) x", far < CLOSE, repr(decaying))


def _far(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


CHECKS: tuple[Check, ...] = (
    Check("memory", "every memory can be kept in a file", kept),
    Check("resumed", "a run that is interrupted and resumed equals the one that is not", resumed),
    Check("downhill", "(x_1 - x_0) . g < 0", downhill),
    Check("still", "at lr = 0 nothing moves", still),
    Check("skip", "a skipped step counts for the schedule alone", skipped),
    Check("held", "memory holds `held` numbers a weight", held),
    Check("module", "steps on a module are those on its parameters as a vector", module),
    Check("decay", "a step along 0 is x <- (1 - lr wd) x", decay),
)
"""The checks of update rules."""


def check_rule(make: MakeRule, level: str = "quick", expected_failures: Mapping[str, str] | None = None) -> Report:
    """Return the report of every check of an update rule x <- x - step(g, memory), make(lr=...) -> UpdateRule.

    Raises:
        CheckFailedError: a check failed, see `check_estimator`.
        UnknownNameError: no such level or check.
    """
    return run(repr(make(lr=RATE)), CHECKS, make, level, expected_failures)
