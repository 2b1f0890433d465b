"""Streams of random numbers, one for each key: entry j is a function of the key and j alone, on every device.

`eager` writes the arithmetic down. Words, signs and what is made of integers are the same bits everywhere; normals are,
on the CPU, and differ by rounding between devices.
"""

import math
from collections.abc import Callable, Sequence
from operator import index
from typing import Protocol

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.random import eager, fused, native

NAME = "Philox4x32-10 1"
"""The stream of random numbers, in headers of journals and states of optimizers: those of another one are refused."""

Shape = tuple[int, ...]
Stream = Callable[[int, int, int, torch.dtype, torch.device], Tensor]
"""(key, start, stop, dtype, device) -> entries start to stop - 1."""

MASK = 0xFFFFFFFF
WORDS = 1 << 130
"""Words of a stream: four at each counter of 128 bits."""


def words(key: int, start: int, stop: int, device: torch.device = CPU) -> Tensor:
    """Return words start to stop - 1 of the stream of a 64-bit key, int64 in [0, 2^32): word j is output j mod 4 of
    Philox4x32-10 at the 128-bit counter j div 4. Time and memory are proportional to stop - start.

    Raises:
        TypeError: key, start or stop is no whole number.
        ValueError: key is not in [0, 2^64), or not 0 <= start <= stop <= 2^130.

    >>> [f"{word:08x}" for word in words(0, 0, 4).tolist()]
    ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    return _backend(device).words(*_range(key, start, stop, WORDS), device)


def signs(key: int, start: int, stop: int, dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Tensor:
    """Return signs start to stop - 1: sign j is bit j mod 32 of word j div 32, +1 where it is set.

    Raises:
        TypeError: key, start or stop is no whole number.
        ValueError: key is not in [0, 2^64), or not 0 <= start <= stop <= 2^135.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return _backend(device).signs(*_range(key, start, stop, 32 * WORDS), wide, device).to(dtype)


def normals(key: int, start: int, stop: int, dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Tensor:
    """Return normals start to stop - 1: normals 2 k and 2 k + 1 are cosine and sine of Box-Muller of words 2 k and
    2 k + 1, |z| <= 6.764. They are computed in float64, or in float32 for every narrower dtype: the float32 numbers are
    the float64 ones up to the rounding of 32-bit uniforms.

    Raises:
        TypeError: key, start or stop is no whole number.
        ValueError: key is not in [0, 2^64), or not 0 <= start <= stop <= 2^130.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    return _backend(device).normals(*_range(key, start, stop, WORDS), wide, device).to(dtype)


def uniforms(key: int, start: int, stop: int, dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> Tensor:
    """Return uniforms start to stop - 1 on (-sqrt(3), sqrt(3)), of variance 1: uniform j is ((word j + 1/2) / 2^31 - 1)
    sqrt(3), rounded to the dtype.

    Raises:
        TypeError: key, start or stop is no whole number.
        ValueError: key is not in [0, 2^64), or not 0 <= start <= stop <= 2^130.
    """
    drawn = words(key, start, stop, device).double()
    return drawn.add_(0.5).mul_(2.0**-31).sub_(1.0).mul_(math.sqrt(3.0)).to(dtype)


def rows(
    stream: Stream, keys: Sequence[Sequence[int]], counts: Sequence[int], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Return the beginnings of streams side by side, (len(keys), sum(counts)): entry j of part k of row i = entry j of
    the stream of keys[i][k], 0 <= j < counts[k]. For `normals` and `signs` on a CPU it is one native call. The keys are
    those of `derive`.
    """
    if stream in (normals, signs) and _backend(device) is native:
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return native.rows(keys, counts, stream is signs, wide).to(dtype)
    parts = [[stream(key, 0, count, dtype, device) for key, count in zip(row, counts, strict=True)] for row in keys]
    return torch.stack([torch.cat(row) for row in parts])


class _Backend(Protocol):
    """What draws a valid range of a stream on a device; normals and signs in float32 or float64."""

    def words(self, key: int, start: int, stop: int, device: torch.device) -> Tensor:
        """Return words start to stop - 1, int64."""

    def signs(self, key: int, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return signs start to stop - 1."""

    def normals(self, key: int, start: int, stop: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """Return normals start to stop - 1."""


def _backend(device: torch.device) -> _Backend:
    if fused.available(device):
        return fused
    return native if device.type == "cpu" and native.available() else eager


def _range(key: int, start: int, stop: int, most: int) -> tuple[int, int, int]:
    given = {"key": key, "start": start, "stop": stop}
    for name, value in given.items():
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise TypeError(f"{name} is {value!r:.200}: give a whole number")
    key, start, stop = index(key), index(start), index(stop)
    if not 0 <= key < 1 << 64:
        raise ValueError(f"key is {key}: give one of 64 bits, from 0 to 2^64 - 1")
    if not 0 <= start <= stop <= most:
        raise ValueError(f"start is {start} and stop {stop}: give 0 <= start <= stop <= 2^{most.bit_length() - 1}")
    return key, start, stop


def normal(key: int, shape: Shape, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return independent z ~ N(0, 1) in a shape, the first normals of a stream."""
    return normals(key, 0, math.prod(shape), dtype, device).view(shape)


def words16(key: int, start: int, stop: int, device: torch.device) -> Tensor:
    """Return integers uniform on {0, ..., 2^16 - 1}, int32: number j is half j mod 2 of word j div 2, the low one
    first.
    """
    halves = words(key, start // 2, -(-stop // 2), device)
    both = torch.stack((halves & 0xFFFF, halves >> 16), -1).flatten()
    return both[start % 2 :][: stop - start].to(torch.int32)


def uniform(key: int, shape: Shape) -> Tensor:
    """Return independent float64 uniforms on [-1, 1), on the CPU: multiples of 2^-52, 32 bits from an even word and 21
    from the odd one after it.
    """
    high, low = words(key, 0, 2 * math.prod(shape)).view(*shape, 2).unbind(-1)
    return ((high << 21) | (low >> 11)).double().mul_(2.0**-52).sub_(1.0)


def integers(key: int, shape: Shape, high: int) -> Tensor:
    """Return independent integers on {0, ..., high - 1}, on the CPU, each with probability 1 / high up to 2^-64: the
    high 64 bits of high times two words, the first of which is the low half.
    """
    low, upper = words(key, 0, 2 * math.prod(shape)).view(*shape, 2).unbind(-1)
    small, large = high & MASK, high >> 32
    middle = upper * small + _above(low * small)
    return upper * large + _above(middle) + _above(low * large + (middle & MASK))


def _above(product: Tensor) -> Tensor:
    """The high half of 64 bits, which torch takes for signed ones."""
    return (product >> 32) & MASK
