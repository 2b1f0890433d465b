"""Layout: the parameters of a space as named segments, cut into blocks that are drawn one at a time."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import torch

from zobench.numbers import count

CPU = torch.device("cpu")
HOW_TO_GIVE = "give the shapes of the tensors in it, such as layout={'weight': (3, 2), 'bias': (3,)}"
BLOCK_SIZE = 1 << 18  # 1 MiB of float32: a block is drawn and applied while it is in cache


def on_device(numbers: Any, device: torch.device, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Return numbers of Python as a tensor on a device; the host does not wait for it to arrive."""
    found = torch.tensor(numbers, dtype=dtype, device=CPU)
    return found.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else found.to(device)


@dataclass(frozen=True)
class Segment:
    """One parameter: its canonical name, number of entries, and where and in which dtype its directions are drawn.

    `shape` is its own, where it has one.
    """

    name: str
    size: int
    dtype: torch.dtype = torch.float64
    device: torch.device = CPU
    shape: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class _Unshaped(Segment):
    """A vector that stands for parameters whose shapes nobody gave: a law that asks for them is refused."""

    def __getattribute__(self, name: str) -> Any:
        if name == "shape":
            raise ValueError(f"the law draws by the shapes of tensors, but x is one vector: {HOW_TO_GIVE}")
        return super().__getattribute__(name)


@dataclass(frozen=True)
class Block:
    """Entries `start` to `stop` of one segment; `offset` is where the block starts in the flattened space."""

    segment: Segment
    index: int
    start: int
    stop: int
    offset: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.stop - self.start


@dataclass(frozen=True)
class Layout:
    """The segments of a space, in canonical order. Two spaces with equal layouts draw equal directions."""

    segments: tuple[Segment, ...]

    @classmethod
    def flat(cls, dim: int, dtype: torch.dtype, device: torch.device) -> "Layout":
        """Return the layout of one anonymous vector of `dim` entries."""
        return cls((Segment("x", dim, dtype, device),))

    @classmethod
    def unshaped(cls, dim: int, device: torch.device) -> "Layout":
        """Return the layout of a vector that stands for tensors whose shapes nobody gave: asking for its shape is a
        ValueError.
        """
        return cls((_Unshaped("x", dim, torch.float64, device),))

    @classmethod
    def of(cls, shapes: "Layout | Mapping[str, Any] | Iterable[Any]") -> "Layout":
        """Return the layout of tensors of these shapes, laid end to end in a float64 vector: {"weight": (3, 2), "bias":
        (3,)}, or [(3, 2), (3,)] with the names "0", "1", ...

        A tensor or array stands for its shape, 3 for (3,), so that dict(module.named_parameters()) is a layout; the
        layout of a space is taken as it is.

        Raises:
            ValueError: no shape, or one that is not of whole numbers from 1.
        """
        if isinstance(shapes, Layout):
            return shapes
        named = shapes.items() if isinstance(shapes, Mapping) else enumerate(shapes)
        pairs = [(str(name), _shape(str(name), shape)) for name, shape in named]
        if not pairs:
            raise ValueError(f"layout is {shapes!r:.200}: {HOW_TO_GIVE}")
        return cls(tuple(Segment(name, prod(shape), shape=shape) for name, shape in pairs))

    @cached_property
    def dim(self) -> int:
        """Number of entries over all segments."""
        return sum(segment.size for segment in self.segments)

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """The blocks of all segments, in order."""
        return tuple(self.cut(BLOCK_SIZE))

    @cached_property
    def blocks_of(self) -> dict[str, tuple[Block, ...]]:
        """The blocks of each segment."""
        by_name: dict[str, list[Block]] = {segment.name: [] for segment in self.segments}
        for block in self.blocks:
            by_name[block.segment.name].append(block)
        return {name: tuple(blocks) for name, blocks in by_name.items()}

    def cut(self, size: int) -> Iterator[Block]:
        """Yield blocks of `size` entries of each segment, in order; its last one may be smaller."""
        offset = 0
        for segment in self.segments:
            for index, start in enumerate(range(0, segment.size, size)):
                yield Block(segment, index, start, min(start + size, segment.size), offset + start)
            offset += segment.size


def _shape(name: str, value: Any) -> tuple[int, ...]:
    value = getattr(value, "shape", value)
    sizes = value if isinstance(value, Iterable) and not isinstance(value, str) else (value,)
    return tuple(count(f"a size of {name!r} in the layout", size) for size in sizes)
