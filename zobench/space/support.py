"""Support: the entries of a module's parameters that directions live on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from zobench.layout import Block, Layout, Segment

Rows = Tensor | Sequence[int]
NO_PACES: Mapping[str, float] = MappingProxyType({})


@dataclass(frozen=True, eq=False)
class Support:
    """All entries of the parameters, or for the matrices named in `rows` only these of their rows, in ascending order.

    The layout's segments are what is left, so that a law sees the smaller space.
    """

    parameters: Mapping[str, nn.Parameter]
    layout: Layout
    rows: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def whole(cls, parameters: Mapping[str, nn.Parameter], paces: Mapping[str, float] = NO_PACES) -> "Support":
        """Return the support of all entries; a parameter steps at its pace, or at 1."""
        segments = (_segment(name, p, paces.get(name, 1.0)) for name, p in parameters.items())
        return cls(parameters, Layout(tuple(segments)))

    def restricted(self, rows: Mapping[str, Rows]) -> "Support":
        """Return the support with these rows of these matrices, each row once.

        Raises:
            ValueError: a name is no parameter of two dimensions here, or a row is out of range, or there is none.
        """
        kept = {name: _row_numbers(name, chosen, self.parameters.get(name)) for name, chosen in rows.items()}
        segments = []
        for segment in self.layout.segments:
            if segment.name in kept:
                count, width = len(kept[segment.name]), segment.shape[1]
                segment = replace(segment, size=count * width, shape=(count, width))
            segments.append(segment)
        return Support(self.parameters, Layout(tuple(segments)), kept)

    def entries(self, name: str, tensor: Tensor) -> Tensor:
        """Return a tensor of the parameter's shape as a vector of the segment: a view of it, or a copy of its rows."""
        chosen: Tensor = tensor[self.rows[name]] if name in self.rows else tensor
        return chosen.flatten()

    def stored(self, block: Block) -> Tensor:
        """Return the stored values of a block: a view of them, or a copy where rows are chosen."""
        return self.entries(block.segment.name, self.parameters[block.segment.name].detach())[block.start : block.stop]


def _row_numbers(name: str, chosen: Rows, parameter: nn.Parameter | None) -> Tensor:
    if parameter is None or parameter.ndim != 2:
        raise ValueError(f"rows of {name!r}: no trainable matrix of that name (tied weights have their first name)")
    numbers: Tensor = torch.unique(torch.as_tensor(chosen, dtype=torch.int64, device=parameter.device))
    if len(numbers) == 0 or int(numbers[0]) < 0 or int(numbers[-1]) >= parameter.shape[0]:
        raise ValueError(
            f"rows of {name!r} are {numbers[:3].tolist()} ... {numbers[-1:].tolist()}: give at least one of 0 to "
            f"{parameter.shape[0] - 1}"
        )
    return numbers


def _segment(name: str, parameter: Tensor, pace: float) -> Segment:
    draw_dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    decays = parameter.ndim >= 2 and not any(word in name.lower() for word in ("bias", "norm"))
    return Segment(name, parameter.numel(), draw_dtype, parameter.device, decays, tuple(parameter.shape), pace)
