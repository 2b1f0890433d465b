"""Small modules in the shapes that engines meet: tied, frozen, with buffers, with strides of their own."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zobench.layout import CPU

ROWS = torch.tensor([0, 2, 1], dtype=torch.int64, device=CPU)


@dataclass(frozen=True)
class ModuleShape:
    """What a module is like: a head that is tied to the embedding, a frozen layer, a buffer, a parameter whose memory
    is in another order than its entries, the width, and the dtype.
    """

    tied: bool = False
    frozen: bool = False
    buffer: bool = False
    strided: bool = False
    width: int = 2
    dtype: torch.dtype = torch.float64

    def __call__(self) -> "Shaped":
        """Return such a module, in evaluation mode, with the same weights at each call."""
        return Shaped(self).eval()


class Shaped(nn.Module):
    """loss = mean (head(tanh(mix(embedding of some rows))) + shift)^2 of a `ModuleShape`."""

    def __init__(self, shape: ModuleShape) -> None:
        super().__init__()
        width, self.shape = shape.width, shape
        self.embedding = nn.Parameter(_waves((3, width), 0.3, shape.dtype))
        mixed = _waves((width, width + 1), 1.1, shape.dtype)
        self.mix = nn.Parameter(mixed.T.contiguous().T if shape.strided else mixed)
        self.fixed = nn.Parameter(_waves((width + 1, width), 2.3, shape.dtype), requires_grad=not shape.frozen)
        self.head = self.embedding if shape.tied else nn.Parameter(_waves((3, width), 0.7, shape.dtype))
        self.shift: Tensor
        if shape.buffer:
            self.register_buffer("shift", _waves((3,), 1.9, shape.dtype))

    def loss(self) -> Tensor:
        """Return the loss, a scalar."""
        hidden = torch.tanh(nn.functional.embedding(ROWS, self.embedding) @ self.mix) @ self.fixed
        found = hidden @ self.head.T
        found = found + self.shift if self.shape.buffer else found
        return found.double().square().mean()


def shapes() -> Iterator[ModuleShape]:
    """Yield the plain shape, and each property alone, then all at once."""
    yield ModuleShape()
    yield ModuleShape(tied=True)
    yield ModuleShape(frozen=True, buffer=True)
    yield ModuleShape(strided=True)
    yield ModuleShape(tied=True, frozen=True, buffer=True, strided=True, width=3)


def _waves(shape: tuple[int, ...], phase: float, dtype: torch.dtype) -> Tensor:
    """Numbers without symmetry, and without random ones."""
    count = int(torch.Size(shape).numel())
    return (torch.arange(count, dtype=torch.float64, device=CPU) * 1.3 + phase).sin().view(shape).to(dtype)
