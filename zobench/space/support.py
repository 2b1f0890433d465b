"""Support: the entries of a module's parameters that directions live on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from zobench.layout import Block, Layout, Segment
from zobench.space.sweep import Drawn, Sweep, Update, run

Rows = Tensor | Sequence[int]


@dataclass(frozen=True, eq=False)
class Support:
    """All entries of the parameters, or for the matrices named in `rows` only these of their rows, in ascending order.

    The layout's segments are what is left, so that a law sees the smaller space.
    """

    parameters: Mapping[str, nn.Parameter]
    layout: Layout
    rows: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def whole(cls, parameters: Mapping[str, nn.Parameter], device: torch.device | None = None) -> "Support":
        """Return the support of all entries, with directions on a device, or where each parameter is stored."""
        return cls(parameters, Layout(tuple(_segment(name, p, device or p.device) for name, p in parameters.items())))

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

    def copies(self, name: str) -> bool:
        """Return whether `entries` of a parameter are a copy: of some rows, or of another memory format."""
        return name in self.rows or not self.parameters[name].is_contiguous()

    def require_whole(self, name: str) -> None:
        """Raise ValueError if directions live on some of the rows of a parameter, all of which is read."""
        if name in self.rows:
            raise ValueError(
                f"all of {name!r} was read, but directions are restricted to some of its rows: the loss depends on the "
                "others too, as a normaliser over the whole vocabulary does; lift the restriction"
            )

    def places(self, name: str, wanted: Tensor) -> Tensor:
        """Return where these rows are among the chosen ones of a matrix.

        Raises:
            ValueError: one of them is not.
        """
        rows = self.rows[name]
        places = torch.searchsorted(rows, wanted).clamp_(max=len(rows) - 1)
        if not torch.equal(rows[places], wanted):
            row = int(wanted[rows[places] != wanted][0])
            raise ValueError(f"row {row} of {name!r} was looked up, but directions are restricted to other rows")
        return places

    @torch.no_grad()
    def tangent(self, name: str, line: Drawn) -> Tensor:
        """Return a line's displacement of a parameter, in its shape and dtype; 0 in rows that are left out."""
        whole = torch.zeros_like(self.parameters[name], memory_format=torch.contiguous_format)
        entries = self.entries(name, whole)
        run([Sweep(self.layout.blocks_of[name], entries, Update(1.0, (line,)))])
        if name in self.rows:
            whole[self.rows[name]] = entries.view(-1, whole.shape[1])
        return whole

    def stored(self, block: Block) -> Tensor:
        """Return the stored values of a block: a view of them, or a copy where rows are chosen, or on the device of the
        directions where the parameter is stored elsewhere.
        """
        entries = self.entries(block.segment.name, self.parameters[block.segment.name].detach())
        return entries[block.start : block.stop].to(block.segment.device)


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


def _segment(name: str, parameter: Tensor, device: torch.device) -> Segment:
    draw_dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
    return Segment(name, parameter.numel(), draw_dtype, device, tuple(parameter.shape))
