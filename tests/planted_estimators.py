"""Wrong estimators, each with the check that is meant for its mistake."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from zobench import (
    CentralStencil,
    Combination,
    Coordinate,
    Estimate,
    Estimator,
    ForwardStencil,
    Gaussian,
    Isotropic,
    KernelStencil,
    Law,
    LineEstimator,
    Rademacher,
    derive,
    kernels,
)
from zobench.random import streams
from zobench.testing import Promises
from zobench.testing.check_estimator import Target

F64 = torch.float64


class Planted(NamedTuple):
    """A mutant: what is wrong with it, the check that must fail, and what is checked."""

    mistake: str
    caught_by: str
    target: Callable[[], Target]
    promises: Promises | None = None


PLANTED: dict[str, Planted] = {}


def planted(mistake: str, caught_by: str, promises: Promises | None = None):
    def kept(target):
        PLANTED[target.__name__] = Planted(mistake, caught_by, lambda: target, promises)
        return target

    return kept


@dataclass(frozen=True)
class Mezo(LineEstimator):
    """The right one, of which mutants differ in one thing; that it is linear is what they say."""

    law: Law = field(default_factory=Gaussian)
    stencil: CentralStencil = field(default_factory=CentralStencil)
    epsilon: float = 1e-2
    n: int = 1
    linear = True

    @property
    def evaluations(self):
        return 2 * self.n


def times(told: Estimate, factor: float) -> Estimate:
    return replace(told, gradient=told.gradient * factor)


@planted("the step is along the next direction", "asked-is-told")
@dataclass(frozen=True)
class NextDirection(Mezo):
    def tell(self, plan, losses, state):
        (term,) = super().tell(plan, losses, state).gradient.terms
        return Estimate(Combination((term._replace(indices=tuple(range(1, self.n + 1))),)), state)


@planted("the step is along a direction of another key", "asked-is-told")
@dataclass(frozen=True)
class OtherKey(Mezo):
    def tell(self, plan, losses, state):
        (term,) = super().tell(plan, losses, state).gradient.terms
        return Estimate(Combination((term._replace(key=derive(term.key, "step")),)), state)


@planted("the same key at every step", "keys")
@dataclass(frozen=True)
class OneKey(Mezo):
    def ask(self, key, state, batch=()):
        return super().ask(7, state, batch)


@planted("the wrong sign", "first-order")
@dataclass(frozen=True)
class Ascent(Mezo):
    def tell(self, plan, losses, state):
        return times(super().tell(plan, losses, state), -1.0)


@planted("not divided by epsilon", "rescaling")
@dataclass(frozen=True)
class NoEpsilon(Mezo):
    def tell(self, plan, losses, state):
        return times(super().tell(plan, losses, state), self.epsilon)


@planted("f(x + e u) - f(x - e u) over e, not 2 e", "first-order")
@dataclass(frozen=True)
class TwiceAsLong(Mezo):
    def tell(self, plan, losses, state):
        return times(super().tell(plan, losses, state), 2.0)


@planted("summed over directions, not averaged", "directions")
@dataclass(frozen=True)
class Summed(Mezo):
    n: int = 3

    def tell(self, plan, losses, state):
        return times(super().tell(plan, losses, state), self.n)


@planted("all n directions are one", "directions")
@dataclass(frozen=True)
class Tied(Mezo):
    n: int = 3

    def ask(self, key, state, batch=()):
        return replace(super().ask(key, state, batch), indices=(0,) * self.n)


@planted("one weight is a tenth too large", "shift", Promises(mean=1.0, shift=True))
@dataclass(frozen=True)
class Unbalanced(Mezo):
    def ask(self, key, state, batch=()):
        plan = super().ask(key, state, batch)
        return replace(plan, weights=plan.weights * torch.tensor([1.1, 1.0], dtype=F64))


@dataclass(frozen=True)
class OneSided(CentralStencil):
    """Forward differences that declare the moments of central ones."""

    def draw(self, key, shape):
        return ForwardStencil().draw(key, shape)

    def quadrature(self, degree):
        return CentralStencil().quadrature(degree)


@planted("one-sided, declared central", "stencil")
@dataclass(frozen=True)
class DeclaredCentral(Mezo):
    stencil: CentralStencil = field(default_factory=OneSided)


@dataclass(frozen=True)
class Smoothing(CentralStencil):
    """Central differences that say they have no bias of order 2."""

    def moment(self, j):
        return 0.0 if j == 3 else super().moment(j)


@planted("the order of a kernel, and none in use", "bias-order")
@dataclass(frozen=True)
class DeclaredOrder(Mezo):
    stencil: CentralStencil = field(default_factory=Smoothing)


@planted("a kernel whose nodes shrink, and whose weights do not", "first-order")
def shrunk(epsilon=1e-2):
    return LineEstimator(Gaussian(), KernelStencil(kernels.shrunk(kernels.legendre(3), 0.7)), epsilon)


PLANTED["shrunk"] = PLANTED["shrunk"]._replace(promises=Promises(mean=1.0))


@planted("draws from torch's global generator", "global-state")
@dataclass(frozen=True)
class Global(Mezo):
    def ask(self, key, state, batch=()):
        return super().ask(int(torch.randint(2**31, ())), state, batch)


@planted("seeds torch's global generator", "global-state")
@dataclass(frozen=True)
class Seeding(Mezo):
    def ask(self, key, state, batch=()):
        torch.manual_seed(key % 2**31)
        return super().ask(key, state, batch)


@planted("counts its own steps, and draws by the count", "determinism")
@dataclass(frozen=True)
class Counting(Mezo):
    steps: list = field(default_factory=lambda: [0], repr=False, compare=False)

    def ask(self, key, state, batch=()):
        self.steps[0] += 1
        return super().ask(derive(key, self.steps[0]), state, batch)


@planted("keeps the last losses in itself", "unchanged")
@dataclass(frozen=True)
class Remembering(Mezo):
    last: list = field(default_factory=list, repr=False, compare=False)

    def tell(self, plan, losses, state):
        self.last.append(float(losses.mean()))
        return super().tell(plan, losses, state)


@planted("writes into the losses", "unchanged")
@dataclass(frozen=True)
class Overwriting(Mezo):
    def tell(self, plan, losses, state):
        losses -= losses.mean(-1, keepdim=True)
        return super().tell(plan, losses, state)


@planted("writes into the state that it is given", "unchanged")
@dataclass(frozen=True)
class Extending(Mezo):
    def init(self):
        return [0.0]

    def tell(self, plan, losses, state):
        state[0] += 1.0
        return super().tell(plan, losses, state)


@planted("fields that can be set", "frozen")
@dataclass(unsafe_hash=True)
class Thawed(Estimator):
    epsilon: float = 1e-2

    def ask(self, key, state, batch=()):
        return Mezo(epsilon=self.epsilon).ask(key, state, batch)

    def tell(self, plan, losses, state):
        return Mezo(epsilon=self.epsilon).tell(plan, losses, state)


@planted("its repr leaves out what it multiplies with", "restorable")
@dataclass(frozen=True)
class Hidden(Mezo):
    factor: float = field(default=1.0, repr=False)

    def tell(self, plan, losses, state):
        return times(super().tell(plan, losses, state), self.factor)


PLANTED["Hidden"] = PLANTED["Hidden"]._replace(target=lambda: lambda epsilon=1e-2: Hidden(epsilon=epsilon, factor=1.5))


@planted("a state that no file keeps", "state")
@dataclass(frozen=True)
class Unkept(Mezo):
    def init(self):
        return {1, 2}


PAST: dict[str, float] = {}


@planted("momentum that lives beside the state", "interrupted")
@dataclass(frozen=True)
class Beside(Mezo):
    law: Law = field(default_factory=Rademacher)

    def init(self):
        PAST["mean"] = 0.0
        return ()

    def tell(self, plan, losses, state):
        PAST["mean"] = 0.5 * PAST["mean"] + float(losses.mean())
        return times(super().tell(plan, losses, state), 1.0 + 0.01 * PAST["mean"])


@planted("declares half of its evaluations", "evaluations")
@dataclass(frozen=True)
class Uncounted(Mezo):
    @property
    def evaluations(self):
        return self.n


@planted("subtracts the mean over the batch", "batch")
@dataclass(frozen=True)
class OverTheBatch(Mezo):
    stencil: CentralStencil = field(default_factory=OneSided)

    def tell(self, plan, losses, state):
        return super().tell(plan, losses - losses.mean(), state)


@planted("clips, and says that it is linear", "linear")
@dataclass(frozen=True)
class Clipped(Mezo):
    def tell(self, plan, losses, state):
        (term,) = super().tell(plan, losses, state).gradient.terms
        return Estimate(Combination((term._replace(coefficients=term.coefficients.clamp(-2.0, 2.0)),)), state)


@planted("the absolute value of the difference", "linear")
@dataclass(frozen=True)
class Unsigned(Mezo):
    def tell(self, plan, losses, state):
        (term,) = super().tell(plan, losses, state).gradient.terms
        return Estimate(Combination((term._replace(coefficients=term.coefficients.abs()),)), state)


@planted("NaN for 0", "nan")
@dataclass(frozen=True)
class NanForZero(Mezo):
    def tell(self, plan, losses, state):
        return super().tell(plan, losses.nan_to_num(0.0, 0.0, 0.0), state)


@planted("infinity for a large number", "infinite")
@dataclass(frozen=True)
class InfinityForLarge(Mezo):
    def tell(self, plan, losses, state):
        return super().tell(plan, losses.clamp(-1e9, 1e9), state)


@dataclass(frozen=True)
class Unsteady(Gaussian):
    """Draws the next numbers of a generator each time that a block is asked for."""

    def direction(self, key, index, layout, batch):
        generator = torch.Generator().manual_seed(derive(key, index))
        return lambda b: torch.randn((*batch, b.size), generator=generator, dtype=F64).to(b.segment.dtype)


@planted("a direction that is another one when it is drawn again", "module")
@dataclass(frozen=True)
class DrawnAnew(Mezo):
    law: Law = field(default_factory=Unsteady)


@dataclass(frozen=True)
class Unsigned1(Coordinate):
    """sqrt(d) e_i without a random sign: not symmetric."""

    def direction(self, key, index, layout, batch):
        draw = super().direction(key, index, layout, batch)
        return lambda block: None if (u := draw(block)) is None else u.abs()


@planted("axes without a random sign, in a forward difference", "quadratic")
@dataclass(frozen=True)
class WithoutSign(Mezo):
    law: Law = field(default_factory=Unsigned1)
    stencil: ForwardStencil = field(default_factory=ForwardStencil)

    @property
    def evaluations(self):
        return 1 + self.n


@dataclass(frozen=True)
class Box(Gaussian):
    """Entries uniform on [-1, 1], whose variance is 1/3."""

    def direction(self, key, index, layout, batch):
        return lambda b: streams.uniform(derive(key, index, b.segment.name, b.index), (*batch, b.size))


@planted("entries of variance 1/3", "first-order")
@dataclass(frozen=True)
class InABox(Mezo):
    law: Law = field(default_factory=Box)


@dataclass(frozen=True)
class Lighter(Isotropic):
    """Gaussian, and says that c_d is d."""

    def direction(self, key, index, layout, batch):
        return Gaussian().direction(key, index, layout, batch)

    def fourth_moment(self, dim):
        return float(dim)


@planted("a fourth moment that is not the law's", "second-moment")
@dataclass(frozen=True)
class DeclaredLighter(Mezo):
    law: Law = field(default_factory=Lighter)


@dataclass(frozen=True)
class Turned(Rademacher):
    """Signs, and says that they are the same in every frame."""

    rotation_invariant = True


@planted("signs, declared invariant under rotations", "rotation")
@dataclass(frozen=True)
class DeclaredTurned(Mezo):
    law: Law = field(default_factory=Turned)


@planted("draws by the name of the thread", "threads")
@dataclass(frozen=True)
class ByThread(Mezo):
    def ask(self, key, state, batch=()):
        return super().ask(derive(key, threading.current_thread().name), state, batch)


@planted("adds a decay to the estimate", "constant", Promises(mean=1.0, shift=True))
@dataclass(frozen=True)
class Decaying(Mezo):
    def tell(self, plan, losses, state):
        (term,) = super().tell(plan, losses, state).gradient.terms
        return Estimate(Combination((term._replace(coefficients=term.coefficients + 1e-3),)), state)
