"""A step that sees a parameter as a whole: (x, gradient) -> step, one parameter after the other."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from zobench.law import Direction
from zobench.law.factors import Coordinates
from zobench.layout import Block, Segment

Weighted = Sequence[tuple[Direction, float]]
WholeRule = Callable[[Segment, Tensor, Coordinates], Tensor]
"""What a rule on whole parameters makes of one: the segment, x in its shape, and the gradient L C R -> the core of the
step, in the same frames.
"""


def gradient_of(segment: Segment, blocks: Iterable[Block], drawn: Weighted) -> Coordinates:
    """Return sum of amount * u in a parameter: the sum of the cores, where all directions have the same frames; else
    the sum itself.
    """
    known = [getattr(draw, "coordinates", None) for draw, _ in drawn] if len(segment.shape) == 2 else []
    if known and None not in known:
        parts: list[Coordinates] = [of(segment) for of in known if of is not None]
        if all(part.same_frames(parts[0]) for part in parts[1:]):
            core = torch.zeros_like(parts[0].core)
            for part, (_, amount) in zip(parts, drawn, strict=True):
                core.add_(part.core, alpha=amount)
            return parts[0]._replace(core=core)
    return Coordinates(_dense(segment, blocks, drawn).view(segment.shape or (segment.size,)))


def _dense(segment: Segment, blocks: Iterable[Block], drawn: Weighted) -> Tensor:
    total = torch.zeros(segment.size, dtype=segment.dtype, device=segment.device)
    for block in blocks:
        for draw, amount in drawn:
            u = draw(block)
            if u is not None:
                total[block.start : block.stop].add_(u, alpha=amount)
    return total


def step_of(segment: Segment, blocks: Sequence[Block], x: Tensor, drawn: Weighted, rule: WholeRule) -> Direction:
    """Return the step of a rule in a parameter, whose entries are the vector x, as a direction.

    Raises:
        ValueError: the rule returns a core of another shape.
    """
    gradient = gradient_of(segment, blocks, drawn)
    core = rule(segment, x.view(segment.shape or (segment.size,)).to(segment.dtype), gradient)
    if core.shape != gradient.core.shape:
        raise ValueError(
            f"the rule makes {tuple(core.shape)} of the gradient of {segment.name!r}, whose core is "
            f"{tuple(gradient.core.shape)}: return the core of the step, in the frames of the gradient"
        )
    return gradient._replace(core=core).drawn(segment)
