"""Wrong laws, rules and engines, each with the check that is meant for its mistake."""

from dataclasses import dataclass

import torch
from own_page import section

from zobench import SGD, Combination, Gaussian, Isotropic, ModuleSpace, Orthogonal, Rademacher, derive
from zobench.random import streams
from zobench.space import InPlace


@dataclass(frozen=True)
class OfGaussian(Isotropic):
    """A Gaussian direction, of which wrong laws differ in one thing."""

    def direction(self, key, index, layout, batch):
        return Gaussian().direction(key, index, layout, batch)

    def fourth_moment(self, dim):
        return dim + 2.0


@dataclass(frozen=True)
class Scaled(OfGaussian):
    """A twentieth too long."""

    def direction(self, key, index, layout, batch):
        draw = super().direction(key, index, layout, batch)
        return lambda block: draw(block) * 1.05


@dataclass(frozen=True)
class Lopsided(OfGaussian):
    """Entries of mean 0 and variance 1 that are skewed."""

    def direction(self, key, index, layout, batch):
        draw = super().direction(key, index, layout, batch)
        return lambda block: (draw(block).square() - 1.0) / 2**0.5


@dataclass(frozen=True)
class Lighter(OfGaussian):
    def fourth_moment(self, dim):
        return float(dim)


@dataclass(frozen=True)
class OneKey(OfGaussian):
    def direction(self, key, index, layout, batch):
        return super().direction(0, index, layout, batch)


@dataclass(frozen=True)
class InOrder(OfGaussian):
    """One generator for all blocks: what a block is depends on what was asked for before."""

    def direction(self, key, index, layout, batch):
        generator = torch.Generator().manual_seed(derive(key, index))
        return lambda b: torch.randn((*batch, b.size), generator=generator, dtype=torch.float64).to(b.segment.dtype)


@dataclass(frozen=True)
class Global(OfGaussian):
    def direction(self, key, index, layout, batch):
        return super().direction(int(torch.randint(2**31, ())), index, layout, batch)


@dataclass(frozen=True)
class NotOrthogonal(OfGaussian):
    orthogonal = True


@dataclass(frozen=True)
class StillOrthogonal(Orthogonal):
    @property
    def independent(self):
        return self


@dataclass(frozen=True)
class Turned(Rademacher):
    rotation_invariant = True


@dataclass(frozen=True)
class WithoutBatch(OfGaussian):
    def direction(self, key, index, layout, batch):
        return lambda b: streams.normal(
            derive(key, index, b.segment.name), (b.size,), b.segment.dtype, b.segment.device
        )


@dataclass(frozen=True, eq=False)
class ByIdentity(OfGaussian):
    """Its copy is another law."""

    __eq__, __hash__ = object.__eq__, object.__hash__


LAWS = {
    "second-moment": Scaled(),
    "odd-moments": Lopsided(),
    "fourth-moment": Lighter(),
    "names": OneKey(),
    "blocks": InOrder(),
    "determinism": Global(),
    "global-state": Global(),
    "orthogonal": NotOrthogonal(),
    "independent": StillOrthogonal(),
    "rotation": Turned(),
    "shapes": WithoutBatch(),
    "hashable": ByIdentity(),
}


@dataclass(frozen=True)
class Uphill(SGD):
    def apply_(self, space, gradient, memory):
        return super().apply_(space, -gradient, memory)


@dataclass(frozen=True)
class Restless(SGD):
    """Moves by a tenth at least."""

    def apply_(self, space, gradient, memory):
        space.step_(gradient, -max(self.lr, 0.1))
        return memory + 1


PAST = [0.0]


@dataclass(frozen=True)
class Beside(SGD):
    """Momentum that lives beside the memory."""

    def init(self, space):
        PAST[0] = 0.0
        return 0

    def apply_(self, space, gradient, memory):
        PAST[0] = 0.9 * PAST[0] + 1.0
        space.step_(gradient, -self.lr * PAST[0])
        return memory + 1


class Unkept:
    """A memory that no file keeps."""


@dataclass(frozen=True)
class Strange(SGD):
    def init(self, space):
        return Unkept()

    def rate(self, memory):
        return self.lr

    def apply_(self, space, gradient, memory):
        super().apply_(space, gradient, 0)
        return memory

    def skip(self, memory):
        return memory


@dataclass(frozen=True)
class Forgetting(SGD):
    """Steps once more as far after the first step; a skipped step begins anew."""

    def rate(self, memory):
        return self.lr * (1 + min(memory, 2))

    def skip(self, memory):
        return 0


@dataclass(frozen=True)
class Thrifty(SGD):
    """Declares a number a weight that it does not hold."""

    held = 1.0


@dataclass(frozen=True)
class OnVectors(SGD):
    """Other steps where the space is one of a module."""

    def apply_(self, space, gradient, memory):
        return super().apply_(space, gradient * (2.0 if isinstance(space, ModuleSpace) else 1.0), memory)


@dataclass(frozen=True)
class Undecayed(SGD):
    def apply_(self, space, gradient, memory):
        space.step_(gradient, -self.rate(memory), 0.0, self.groups)
        return memory + 1


RULES = {
    "downhill": Uphill,
    "still": Restless,
    "resumed": Beside,
    "memory": Strange,
    "skip": Forgetting,
    "held": Thrifty,
    "module": OnVectors,
    "decay": Undecayed,
}

with torch.device("cpu"):
    Copied = section("An engine")["Copied"]
"""Somebody else's engine, which is right."""


class Far(Copied):
    """Looks a tenth too far."""

    def at(self, point, loss, kept):
        return super().at({line: 1.1 * amount for line, amount in point.items()}, loss, kept)


class Twice(Copied):
    """Calls the loss twice."""

    def at(self, point, loss, kept):
        super().at(point, loss, kept)
        return super().at(point, loss, kept)


class Forgetful(Copied):
    """Stays at its last point."""

    def restore(self, kept):
        self.stored.torn = False


class Short(Copied):
    """Steps half of the way."""

    def step_(self, step):
        super().step_(type(step)({line: amount / 2 for line, amount in step.amounts.items()}, step.shrink, step.groups))


class Late(Copied):
    """Writes a step when it is flushed, and does not show it to losses."""

    def __init__(self):
        self.waiting = []

    def step_(self, step):
        self.waiting.append(step)

    def flush_(self):
        while self.waiting:
            super().step_(self.waiting.pop(0))


class Unwalked(InPlace):
    """Rounds on the way to points, and not where a replay walks."""

    def replay_(self, points):
        return


class Untied(Copied):
    """Writes parameters in the order of their entries."""

    def step_(self, step):
        super().step_(step)
        for p in self.stored.parameters.values():
            p.data = p.data.clone(memory_format=torch.contiguous_format)


class Steps(ModuleSpace):
    """Steps along NaN, too."""

    def step_(self, combination, scale=1.0, *args, **options):
        terms = [t._replace(coefficients=t.coefficients.nan_to_num(1.0)) for t in combination.terms]
        super().step_(Combination(tuple(terms)), scale, *args, **options)


def in_space(engine):
    return lambda module: ModuleSpace(module, engine())


SPACES = {
    "points": in_space(Far),
    "calls": in_space(Twice),
    "restored": in_space(Forgetful),
    "steps": in_space(Short),
    "pending": in_space(Late),
    "replayed": in_space(Unwalked),
    "tied": in_space(Untied),
    "refused": Steps,
}
