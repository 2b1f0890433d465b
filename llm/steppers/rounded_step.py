"""The effect of rounding on a step: the share of weights that moved, and the cosine with the intended step."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from zobench import Combination, ModuleSpace
from zobench.groups import Groups
from zobench.layout import Block

SAMPLE = 4096
NOISE = 0.5


class RoundedStep(NamedTuple):
    """The share of the weights that a step moved, and the cosine of the intended and the realised step (nan where
    nothing moved), from up to 4096 entries of each tensor, which stand for all of it.
    """

    moved: float
    cosine: float

    @property
    def noise(self) -> bool:
        """Whether most of the realised step is rounding: the cosine is below 0.5, or nothing moved."""
        return not self.cosine >= NOISE


def sample(space: ModuleSpace) -> dict[str, Tensor]:
    """Return the first entries of each tensor, float64 on the CPU; the space must be settled."""
    parameters = dict(space.module.named_parameters())
    return {
        s.name: parameters[s.name].detach().reshape(-1)[:SAMPLE].cpu().to(torch.float64, copy=True)
        for s in space.layout.segments
    }


def measure(
    space: ModuleSpace, before: Mapping[str, Tensor], gradient: Combination, lr: float, shrink: float, groups: Groups
) -> RoundedStep:
    """Compare the step along -lr gradient, taken since `before`, with what it was meant to be.

    Cost: the direction of the first block of each tensor, drawn once more.
    """
    after = sample(space)
    blocks = [block for block in space.layout.blocks if block.index == 0]
    factors = {b.segment.name: groups.of(b.segment) for b in blocks}
    meant = {name: -shrink * factor.decay * before[name] for name, factor in factors.items()}
    for draw, amount in space.drawn(gradient):
        for block in blocks:
            u, name = draw(block), block.segment.name
            if u is not None:
                part = u.view(-1)[: len(before[name])].double().cpu()
                meant[name].add_(part, alpha=-lr * factors[name].rate * amount)
    return _compare(blocks, before, after, meant)


def _compare(
    blocks: list[Block], before: Mapping[str, Tensor], after: dict[str, Tensor], meant: dict[str, Tensor]
) -> RoundedStep:
    sums = torch.zeros(4, dtype=torch.float64)  # moved, meant . done, |meant|^2, |done|^2
    total = sum(block.segment.size for block in blocks)
    for block in blocks:
        name = block.segment.name
        done, wanted = after[name] - before[name], meant[name]
        means = [(done != 0).double().mean(), (done * wanted).mean(), wanted.square().mean(), done.square().mean()]
        sums += torch.stack(means) * block.segment.size
    moved, along, wanted_square, done_square = sums.tolist()
    norm = (wanted_square * done_square) ** 0.5
    return RoundedStep(moved / total, along / norm if norm else float("nan"))
