"""The share of a step that remains after the plain engine's rounding, that of perturbing included, from a sample."""

from collections.abc import Mapping

import torch
from torch import Tensor

from zobench import Combination, ModuleSpace
from zobench.groups import Groups
from zobench.space.motion import Motion, StepComparison

SAMPLE = 4096
"""Entries of each tensor that stand for all of it, at most."""


def sample(space: ModuleSpace) -> dict[str, Tensor]:
    """Return the first entries of each tensor, float64 on the CPU; the space must be settled."""
    parameters = dict(space.module.named_parameters())
    return {
        s.name: parameters[s.name].detach().reshape(-1)[:SAMPLE].cpu().to(torch.float64, copy=True)
        for s in space.layout.segments
    }


def measure(
    space: ModuleSpace, before: Mapping[str, Tensor], gradient: Combination, lr: float, shrink: float, groups: Groups
) -> Motion:
    """Compare the step along -lr gradient, taken since `before`, with what it was meant to be.

    Cost: the direction of the first block of each tensor, drawn once more.
    """
    after, compared = sample(space), StepComparison(walked=True)
    blocks = [block for block in space.layout.blocks if block.index == 0]
    factors = {b.segment.name: groups.of(b.segment) for b in blocks}
    intended = {name: -shrink * factor.decay * before[name] for name, factor in factors.items()}
    for draw, amount in space.drawn(gradient):
        for block in blocks:
            u, name = draw(block), block.segment.name
            if u is not None:
                direction = u.view(-1)[: len(before[name])].double().cpu()
                intended[name].add_(direction, alpha=-lr * factors[name].rate * amount)
    for block in blocks:
        name = block.segment.name
        compared.add(intended[name], after[name] - before[name], block.segment.size / len(before[name]))
    return compared.motion
