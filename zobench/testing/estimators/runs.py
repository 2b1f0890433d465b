"""Several steps: on vectors and on modules, interrupted and not."""

from typing import Any

import torch
from torch import Tensor, nn

from zobench.query import query
from zobench.random.keys import derive
from zobench.space import FlatSpace, ModuleSpace
from zobench.state import plain, restored, same
from zobench.testing import examples
from zobench.testing.check import Check, Level
from zobench.testing.estimators.contract import again
from zobench.testing.report import Finding, NotApplicableError
from zobench.testing.subject import Everywhere, Subject

STEPS, STOP = 6, 3
RATE = 1e-3
CLOSE = 1e-7


class Halves(nn.Module):
    """A point as the parameters of a module: a matrix and a vector, tied to a second name, beside a frozen one."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        cut = 2 * ((len(x) - 1) // 2)
        self.matrix, self.vector = nn.Parameter(x[:cut].view(-1, 2).clone()), nn.Parameter(x[cut:].clone())
        self.again, self.frozen = (
            self.vector,
            nn.Parameter(torch.ones(3, dtype=x.dtype, device=x.device), requires_grad=False),
        )

    def point(self) -> Tensor:
        """Return the vector."""
        return torch.cat((self.matrix.flatten(), self.vector))


def module(subject: Subject, level: Level) -> Finding:
    """The same steps on a vector, and on a module whose parameters it is."""
    if subject.estimator is None:
        raise NotApplicableError("a plain function has vectors only")
    estimator, example = subject.estimator, examples.smooth(max(5, subject.least_dim))
    held = Halves(example.x).eval()
    space = ModuleSpace(held)
    flat = FlatSpace(example.x.clone(), space.layout)
    state = other = estimator.init()
    for step in range(STEPS // 2):
        key = derive("zobench.testing", "module", step)
        one = query(flat, estimator, Everywhere(example.f), key, state)
        two = query(space, estimator, Everywhere(lambda *_: example.f(held.point())), key, other)
        state, other = one.state, two.state
        scale = max(float(one.gradient.coefficients.abs().max()), 1.0)
        far = float((one.gradient.coefficients - two.gradient.coefficients).abs().max())
        if one.queries != two.queries or not far < CLOSE * scale:
            told_costs = (
                f"{one.queries} and {two.queries} evaluations on a vector and on a module, coefficients {far:.2g} apart"
            )
            return Finding(told_costs, False, str(example), f"step {step}, key = {key}")
        for each, told in ((flat, one), (space, two)):
            each.step_(told.gradient, -RATE / round(scale))
        space.settle_()
        if not torch.allclose(flat.x, held.point().detach(), rtol=CLOSE, atol=CLOSE):
            told_points = f"x = {flat.x.tolist()} on a vector and {held.point().tolist()} on a module"
            return Finding(told_points, False, str(example), f"step {step}, key = {key}")
    return Finding(f"{STEPS // 2} steps on a vector and on a module end alike", True)


def interrupted(subject: Subject, level: Level) -> Finding:
    """A run, and one that stops, is put into plain data, and goes on with an estimator that is made again."""
    if subject.estimator is None:
        raise NotApplicableError("a plain function has no state")
    estimator, start = subject.estimator, examples.smooth(max(2, subject.least_dim)).x
    x, kept = _run(estimator, subject, start, None, range(STEPS))
    y, stopped = _run(estimator, subject, start, None, range(STOP))
    told = plain(stopped)
    _run(estimator, subject, start, None, range(1))  # another run meets nothing of this one
    y, resumed = _run(_made_again(estimator), subject, y, restored(told), range(STOP, STEPS))
    holds = torch.equal(x, y) and same(kept, resumed)
    example = str(examples.smooth(max(2, subject.least_dim)))
    differ = f"x = {x.tolist()} uninterrupted, {y.tolist()} interrupted after {STOP} of {STEPS} steps"
    return Finding(
        "equal to the bit" if holds else differ, holds, example, f"states {kept[0]!r:.80} and {resumed[0]!r:.80}"
    )


def _made_again(estimator: Any) -> Any:
    """The estimator of its repr; where it has none, which is another check's, itself."""
    try:
        return again(estimator)
    except Exception:
        return estimator


def _run(
    estimator: Any, subject: Subject, x: Tensor, kept: tuple[Any, Any] | None, steps: range
) -> tuple[Tensor, tuple[Any, Any]]:
    """The point after these steps, and what a checkpoint keeps: the state and the snapshots of the space."""
    f = examples.smooth(len(x)).f
    space = FlatSpace(x.clone(), subject.layout(len(x)))  # type: ignore[attr-defined]
    now, space.snapshots = (estimator.init(), {}) if kept is None else kept
    for step in steps:
        told = query(space, estimator, Everywhere(f), derive("zobench.testing", "run", step), now)
        now = told.state
        space.step_(told.gradient, -RATE)
    return space.x, (now, space.snapshots)


CHECKS = (
    Check("module", "estimates and steps on a module are those on its parameters as a vector", module),
    Check("interrupted", "a run that is interrupted and resumed equals the one that is not", interrupted),
)
