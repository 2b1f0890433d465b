"""Spaces and gradients that tests of rules on matrices share."""

import torch
from engines import Net, space_of

from zobench import Combination, FlatSpace, Groups, LowRank, ModuleSpace, Subspace, Term
from zobench.space import Batched

F64 = torch.float64
GROUPS = Groups({"embedding.weight": 0.3, "shared.bias": 7.0})
REFRESHES = (11, 11, 12, 12, 12, 13)
LAWS_HELD = {"low rank": LowRank(2), "subspace": Subspace(3), "left": Subspace(3, right=False)}
UNSCALED = (LowRank(2, scaled=False), Subspace(3, scaled=False), Subspace(3, right=False, scaled=False))


def term(law, key, *coefficients):
    return Term(law, key, torch.tensor(coefficients, dtype=F64))


def gradients(law):
    """Six steps of two directions under three refreshes."""
    coefficients = ((0.5, -1.5), (1.0, 0.3), (-0.7, 0.2), (0.4, 0.9), (1.1, -0.6), (0.8, 0.8))
    pairs = enumerate(zip(REFRESHES, coefficients, strict=True))
    return [Combination((term(law.refreshed(refresh), 100 + k, *c),)) for k, (refresh, c) in pairs]


def space_for(engine):
    if engine == "flat":
        space = space_of("plain", Net())
        return FlatSpace(space.vector(), space.layout)
    return ModuleSpace(Net(), Batched()) if engine == "batched" else space_of(engine, Net())


def vector(space):
    return space.x.clone() if isinstance(space, FlatSpace) else space.vector()


def stepped(space, rule, combinations):
    memory = rule.init(space)
    for gradient in combinations:
        memory = rule.apply_(space, gradient, memory)
    space.settle_()
    return memory
