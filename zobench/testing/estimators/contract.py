"""The contract of ask and tell: what is counted, what is moved along, and what stays as it was."""

import copy
import math
import sys
from contextlib import suppress
from dataclasses import FrozenInstanceError, fields, is_dataclass
from typing import Any, cast

import torch

from zobench import estimators, kernels, maps, public
from zobench.combination import Line
from zobench.estimator import Estimator
from zobench.identity import restore
from zobench.plan import SLOPE, Plan
from zobench.query import converse
from zobench.random.keys import derive
from zobench.state import plain, restored, same
from zobench.testing import examples
from zobench.testing.check import Check, Level
from zobench.testing.examples import Example
from zobench.testing.report import Finding, NotApplicableError
from zobench.testing.subject import Counted, Everywhere, Subject

STEPS = 4


def evaluations(subject: Subject, level: Level) -> Finding:
    """Count from outside, over some keys, or over the steps of a run."""
    example, declared = examples.smooth(max(2, subject.least_dim)), subject.promises.evaluations
    if subject.estimator is None:
        counts = [len(subject.points(example.f, example.x, key)) for key in range(2 * STEPS)]
    else:
        counts = _counted(subject, example)
    least, most = min(counts), max(counts)
    seen = f"{least}" if least == most else f"{least} to {most}"
    sentence = f"{seen} evaluations an estimate" + ("" if declared is None else f", {declared} declared")
    holds = declared is None or least <= declared <= most  # of steps that differ an average is declared, or a bound
    return Finding(sentence, holds, str(example), f"{2 * STEPS} estimates")


def _counted(subject: Any, example: Example) -> list[int]:
    """The evaluations of the steps of a run, which are those that its plans tell."""
    estimator, state, counts = subject.estimator, subject.estimator.init(), []
    if estimator.ask(0, state).asks == SLOPE:
        raise NotApplicableError("a slope is one pass, which counts as 3 evaluations")
    space = subject.space(example.x)
    for step in range(2 * STEPS):
        counted = Counted(example.f)
        estimate = subject.told(counted, space, step, (), state)
        state = estimate.state
        counts.append(len(counted.points))
        if counts[-1] != estimate.queries:
            raise AssertionError(f"step {step} evaluates {counts[-1]} times, its plans tell {estimate.queries}")
    return counts


def asked_is_told(subject: Subject, level: Level) -> Finding:
    """Every direction of the gradient is one that a plan asked along, in this step or before."""
    if subject.estimator is None:
        return _spanned(subject, level)
    example = examples.smooth(max(2, subject.least_dim))
    estimator, state, one = subject.estimator, subject.estimator.init(), cast(Any, subject)
    asked: set[Line] = set()
    space = one.space(example.x)
    for step in range(STEPS):
        key = derive("zobench.testing", "asked", step)
        estimate = one.told(example.f, space, key, (), state)
        for plan, _ in estimate.rounds:
            asked |= _lines(plan, example.f.dim)
        for (law, line_key, index), _ in estimate.gradient.lines:
            if (law, line_key, index) not in asked:
                told_line = f"direction {index} of {law!r} under key {line_key}, along which no plan evaluates f"
                return Finding(f"a step along {told_line}", False, str(example), f"key = {key}")
        state = estimate.state
    return Finding(f"{STEPS} steps of {estimator.__class__.__name__} are along directions of evaluated points", True)


def _lines(plan: Plan, dim: int) -> set[Line]:
    """The directions along which a plan evaluates f, and the directions that may get their coefficients."""
    lines = {line for i in range(plan.offsets.shape[-2]) for line in plan.line(i, dim)}
    return lines | {(law.credit, key, index) for law, key, index in lines}


def _spanned(subject: Subject, level: Level) -> Finding:
    """From outside: the estimate is a combination of displacements."""
    example = examples.smooth(max(6, subject.least_dim))
    for key in range(level.keys):
        counted = Counted(example.f)
        g = subject.estimate(counted, example.x, key)
        moved = torch.stack(counted.points) - example.x
        basis = torch.linalg.svd(moved, full_matrices=False)
        large = basis.S > 1e-6 * basis.S.max()  # noqa: SIM300
        kept = basis.Vh[large] if bool(moved.any()) else basis.Vh[:0]
        rest = float((g - kept.T @ (kept @ g)).norm()) / max(float(g.norm()), 1e-300)
        if rest > 1e-4:
            sentence = f"{rest:.0%} of the estimate is orthogonal to the {len(kept)} displacements of evaluated points"
            return Finding(sentence, False, str(example), f"key = {key}")
    return Finding("the estimate is a combination of the displacements of evaluated points", True)


def unchanged(subject: Subject, level: Level) -> Finding:
    """The estimator, the state, the losses and x, before and after."""
    example = examples.smooth(max(2, subject.least_dim))
    if subject.estimator is None:
        after = subject.leaves(example.f, example.x, 1)  # type: ignore[attr-defined]
        left = torch.equal(after, example.x)
        return Finding("x is as it was" if left else f"x is {after.tolist()} afterwards", left, str(example), "key = 1")
    estimator, state = subject.estimator, subject.estimator.init()
    before, kept = _told_of(estimator), None
    space = cast(Any, subject).space(example.x)
    for step in range(STEPS):
        kept = copy.deepcopy(state)
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []

        def answer(plan: Plan, seen: list[Any] = seen) -> torch.Tensor:
            losses: torch.Tensor = space.losses(Everywhere(example.f), plan)
            seen.append((losses, losses.clone()))
            return losses

        estimate = converse(space, estimator, answer, derive("zobench.testing", "unchanged", step), state)
        if any(not torch.equal(one, other) for one, other in seen):
            return Finding("tell writes into the losses that it is told", False, str(example), f"step {step}")
        if not _alike(state, kept):
            return Finding(f"the state {kept} is {state} afterwards", False, str(example), f"step {step}")
        state = estimate.state
        if _told_of(estimator) != before:
            return Finding(
                f"the estimator is {_told_of(estimator)}, it was {before}", False, str(example), f"step {step}"
            )
    return Finding("the estimator, the state and the losses stay as they were", True)


def _told_of(estimator: Estimator) -> str:
    """The repr, and what the object holds without caches of its own."""
    held = {name: value for name, value in vars(estimator).items() if not _is_cached(type(estimator), name)}
    return f"{estimator!r} {held}" if held else repr(estimator)


def _is_cached(kind: type, name: str) -> bool:
    return type(getattr(kind, name, None)).__name__ == "cached_property"


def _alike(one: Any, other: Any) -> bool:
    try:
        return same(one, other)
    except TypeError:  # a state that no file can keep, which is another check's
        return repr(one) == repr(other)


def frozen(subject: Subject, level: Level) -> Finding:
    """Set a field to what it is; compare with a copy."""
    estimator = subject.estimator
    if estimator is None or not is_dataclass(estimator):
        raise NotApplicableError("it is no dataclass")
    for field in fields(estimator)[:1]:
        try:
            setattr(estimator, field.name, getattr(estimator, field.name))
        except FrozenInstanceError:
            continue
        return Finding(f"{field.name} can be set", False, repr(estimator))
    twin = copy.deepcopy(estimator)
    try:
        alike = estimator == twin and hash(estimator) == hash(twin)
    except TypeError as error:
        return Finding(f"it has no hash: {error}", False, repr(estimator))
    return Finding("fields cannot be set; it is equal to its copy" if alike else "it differs from its copy", alike)


def restorable(subject: Subject, level: Level) -> Finding:
    """Make the estimator again of its repr."""
    if subject.estimator is None:
        raise NotApplicableError("a plain function has no repr that makes it")
    estimator = subject.estimator
    try:
        made = again(estimator)
    except Exception as error:
        return Finding(f"{estimator!r} makes nothing: {type(error).__name__}: {error}", False)
    if repr(made) != repr(estimator):
        return Finding(f"{estimator!r} makes {made!r}", False)
    example = examples.smooth(max(2, subject.least_dim))
    one = subject.estimate(example.f, example.x, 5)
    copied = type(subject)(lambda: made, promises=subject.promises)  # type: ignore[call-arg]
    if not torch.equal(one, copied.estimate(example.f, example.x, 5)):
        return Finding(f"what {estimator!r} makes has other estimates", False, str(example), "key = 5")
    return Finding("its repr makes an equal estimator", True)


def again(estimator: Estimator) -> Any:
    """Return the estimator that a repr makes; one of your own with the names of its module."""
    with suppress(ValueError):
        made = restore(repr(estimator))
        if type(made) is type(estimator):  # and not a class of zobench that has the name of yours
            return made
    module = vars(sys.modules[type(estimator).__module__])
    own = {type(estimator).__name__: type(estimator), "inf": math.inf, "nan": math.nan}
    text = repr(estimator).replace(type(estimator).__qualname__, type(estimator).__name__)
    return eval(text, {**vars(public), **vars(kernels), **vars(maps), **vars(estimators), **module, **own})


def kept(subject: Subject, level: Level) -> Finding:
    """The states of some steps as plain data, and back."""
    if subject.estimator is None:
        raise NotApplicableError("a plain function has no state")
    example, state = examples.smooth(max(2, subject.least_dim)), subject.estimator.init()
    one = cast(Any, subject)
    space = one.space(example.x)
    for step in range(STEPS):
        try:
            back = restored(plain(state))
        except (TypeError, ValueError) as error:
            return Finding(f"the state {state!r:.200}: {error}", False, str(example), f"step {step}")
        if not same(back, state):
            return Finding(f"the state {state!r:.200} comes back as {back!r:.200}", False, str(example), f"step {step}")
        state = one.told(example.f, space, step, (), state).state
    return Finding("states of files are those of the run", True)


CHECKS = (
    Check("evaluations", "evaluations of f are the declared ones", evaluations, "evaluations",
          lambda s: s.estimator is not None or s.promises.evaluations is not None),
    Check("asked-is-told", "the step is along directions that f was evaluated along", asked_is_told,
          "an Estimator, or linear", lambda s: s.estimator is not None or s.promises.linear),
    Check("unchanged", "ask and tell change neither the estimator, the state, the losses nor x", unchanged),
    Check("frozen", "fields cannot be set; equality and hash are by value", frozen),
    Check("restorable", "eval(repr(estimator)) is the estimator", restorable),
    Check("state", "every state can be kept in a file", kept),
)  # fmt: skip
