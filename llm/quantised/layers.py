"""Layers whose weights are codes and scales: they are dequantised tile by tile while they are used."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from llm.quantised.activations import incoming
from llm.quantised.formats import Format, Packed
from zobench.products import linear

TILE = 2**20
"""The most entries of a dequantised tile: 4 MiB in float32."""


def tiled_linear(
    x: Tensor, rows: Callable[[slice], Tensor], shape: tuple[int, int], bias: Tensor | None = None
) -> Tensor:
    """Return x W^T + b in the dtype of x, W (out, in) of this shape: `rows` gives the rows of a slice, of which no more
    than `TILE` entries (or a row) are held.
    """
    count, columns = shape
    size = max(1, TILE // columns)
    if count <= size:
        return linear(x, rows(slice(None)).to(x.dtype), bias)
    tiles = (slice(start, start + size) for start in range(0, count, size))
    outputs = torch.cat([linear(x, rows(tile).to(x.dtype)) for tile in tiles], -1)
    return outputs if bias is None else outputs + bias


class Quantised(nn.Module):
    """A matrix (out, in) of a format: `codes` are a buffer, which no step changes; `scales` and `zeros` are parameters
    (out, groups), held in float16 where they are not trained and in float32 where they are (`floats_`).
    """

    codes: Tensor
    scales: nn.Parameter
    zeros: nn.Parameter | None
    searched = False
    """Whether training changes the codes."""
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
    """y = r(x / t) W^T + b, W dequantised in tiles of at most `TILE` entries (or a row), so that no copy of it exists.
    t are smoothing factors (in,), a buffer, None where they are 1; r rounds each token's inputs to `activations` bits,
    None where they are not rounded (`incoming`).

    It is a Linear to code that asks for one, as peft does; `weight` is no parameter. Cost: that of a Linear, and once a
    call the dequantisation of W.
    """

    smoothing: Tensor | None

    def __init__(
        self,
        format: Format,
        packed: Packed,
        bias: nn.Parameter | None = None,
        smoothing: Tensor | None = None,
        activations: int | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self._hold(format, packed)
        self.out_features, self.in_features = self.shape
        self.register_parameter("bias", bias)
        self.register_buffer("smoothing", smoothing)
        self.activations = activations

    def forward(self, x: Tensor) -> Tensor:
        """Return r(x / t) W^T + b in the dtype of x."""
        return tiled_linear(incoming(x, self.smoothing, self.activations), self.rows, self.shape, self.bias)

    def at(self, x: Tensor, chosen: slice | Tensor) -> Tensor:
        """Return the outputs of these rows of W, (..., rows), without the bias; the rows are dequantised at once."""
        x = incoming(x, self.smoothing, self.activations)
        return linear(x, self.rows(chosen).to(x.dtype))

    @property
    def dense(self) -> Tensor:
        """W / t: the matrix of a Linear that reads x as it is, float32 or wider, up to the rounding of x."""
        return self.weight if self.smoothing is None else self.weight / self.smoothing


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
