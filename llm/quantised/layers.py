"""Layers whose weights are codes and scales: they are dequantised tile by tile while they are used."""

from typing import Any

import torch
from torch import Tensor, nn

from llm.quantised.formats import Format, Packed
from zobench.products import linear

TILE = 2**20
"""The most entries of a dequantised tile: 4 MiB in float32."""


class Quantised(nn.Module):
    """A matrix (out, in) of a format: `codes` are a buffer, which no step changes; `scales` and `zeros` are parameters
    (out, groups), held in float16 where they are not trained and in float32 where they are (`floats_`).
    """

    codes: Tensor
    scales: nn.Parameter
    zeros: nn.Parameter | None
    searched = False
    """Whether a search changes the codes."""
    wide = False
    """Whether scales and zero points are in float32 also where they are not trained: in files that steps write to."""
    as_exported = False
    """Whether scales and zero points are read as a file holds them, in float16."""

    def _hold(self, format: Format, packed: Packed) -> None:
        self.format = format
        self.register_buffer("codes", packed.codes)
        self.scales = nn.Parameter(packed.scales, requires_grad=False)
        zeros = packed.zeros
        self.register_parameter("zeros", None if zeros is None else nn.Parameter(zeros, requires_grad=False))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.codes.shape[0], self.codes.shape[1] * self.format.group

    def rows(self, chosen: Any) -> Tensor:
        """Return these rows of the matrix, a slice or a tensor of numbers, dequantised to float32."""
        scales, all_zeros = self.scales[chosen], self.zeros
        zeros = None if all_zeros is None else all_zeros[chosen]
        if self.as_exported:
            scales, zeros = scales.half(), None if zeros is None else zeros.half()
        return self.format.dequantise(self.codes[chosen], scales, zeros)

    @property
    def weight(self) -> Tensor:
        """The whole matrix, dequantised: a copy of `out x in` numbers at each call."""
        return self.rows(slice(None))

    def share(self, other: "Quantised") -> None:
        """Hold the codes, scales and zero points of another layer: tied weights."""
        self.format = other.format
        self.register_buffer("codes", other.codes)
        self.scales = other.scales
        self.register_parameter("zeros", other.zeros)

    def extra_repr(self) -> str:
        """Return the shape and the format."""
        return f"{self.shape[1]}, {self.shape[0]}, {self.format.name}, group={self.format.group}"


class QuantisedLinear(Quantised, nn.Linear):  # type: ignore[override]
    """y = x W^T + b, W dequantised in tiles of at most `TILE` entries (or a row), so that no copy of it exists.

    It is a Linear to code that asks for one, as peft does; `weight` is no parameter. Cost: that of a Linear, and once a
    call the dequantisation of W.
    """

    def __init__(self, format: Format, packed: Packed, bias: nn.Parameter | None = None) -> None:
        nn.Module.__init__(self)
        self._hold(format, packed)
        self.out_features, self.in_features = self.shape
        self.register_parameter("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + b in the dtype of x."""
        size = max(1, TILE // self.in_features)
        if self.out_features <= size:
            return linear(x, self.weight.to(x.dtype), self.bias)
        tiles = [slice(start, start + size) for start in range(0, self.out_features, size)]
        outputs = torch.cat([self.at(x, tile) for tile in tiles], -1)
        return outputs if self.bias is None else outputs + self.bias

    def at(self, x: Tensor, chosen: slice | Tensor) -> Tensor:
        """Return the outputs of these rows of W, (..., rows), without the bias; the rows are dequantised at once."""
        return linear(x, self.rows(chosen).to(x.dtype))


class QuantisedEmbedding(Quantised):
    """Rows of a matrix by number, dequantised when they are looked up, in the dtype of the model."""

    def __init__(self, format: Format, packed: Packed, dtype: torch.dtype, padding_idx: int | None = None) -> None:
        super().__init__()
        self._hold(format, packed)
        self.num_embeddings, self.embedding_dim = self.shape
        self.reads, self.padding_idx = dtype, padding_idx

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of token ids (...), (..., dim)."""
        return self.rows(ids).to(self.reads)
