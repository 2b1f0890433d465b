"""Streams of random numbers, one for each key.

On the CPU float64 numbers come from NumPy's SFC64 seeded with 128 bits, and a shorter draw is a prefix of a longer one
with the same key and row length. float32 ones are those of torch's generator, drawn natively where `native` says so; it
reads 32 bits of the seed, so two of B blocks of a direction share their numbers with probability about B^2 / 2^33. On
another device torch's generator of that device draws: other numbers, the same law.
"""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.random import native
from zobench.random.keys import derive

NAME = "SFC64 and torch 1"
"""The stream of random numbers, in headers of journals and states of optimizers: those of another one are refused."""

Shape = tuple[int, ...]
Stream = Callable[[int, Shape, torch.dtype, torch.device], Tensor]


def _numpy_generator(key: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence((key, derive(key, "high")))))


def _torch_generator(key: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(key)


def normal(key: int, shape: Shape, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return independent z ~ N(0, 1)."""
    if device.type == "cpu" and dtype == torch.float64:
        return torch.from_numpy(_numpy_generator(key).standard_normal(shape))
    if device.type == "cpu" and dtype == torch.float32 and math.prod(shape) >= native.GROUP and native.available():
        return native.normals(key, math.prod(shape)).view(shape)
    return torch.randn(shape, dtype=dtype, device=device, generator=_torch_generator(key, device))


def signs(key: int, shape: Shape, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return independent signs, P(+1) = P(-1) = 1/2, one random bit each."""
    if device.type != "cpu":
        bits = torch.randint(2, shape, dtype=torch.int8, device=device, generator=_torch_generator(key, device))
    else:
        count = math.prod(shape)
        octets = _numpy_octets(key, count) if dtype == torch.float64 else _torch_octets(key, count)
        bits = torch.from_numpy(np.unpackbits(octets, count=count).reshape(shape))
    return bits.to(dtype).mul_(2).sub_(1)


def _numpy_octets(key: int, count: int) -> npt.NDArray[np.uint8]:
    return np.frombuffer(_numpy_generator(key).bytes((count + 7) // 8), dtype=np.uint8)


def _torch_octets(key: int, count: int) -> npt.NDArray[np.uint8]:
    return words16(key, (count + 15) // 16).numpy().astype(">u2").view(np.uint8)


def words16(key: int, count: int) -> Tensor:
    """Return integers uniform on {0, ..., 2^16 - 1}, int32 (count,), on the CPU."""
    words = torch.empty(count, dtype=torch.int32, device=CPU)
    return words.random_(0, 1 << 16, generator=_torch_generator(key, words.device))


def uniform(key: int, shape: Shape) -> Tensor:
    """Return independent float64 uniforms on [-1, 1), on the CPU."""
    return torch.from_numpy(_numpy_generator(key).random(shape)).mul_(2).sub_(1)


def integers(key: int, shape: Shape, high: int) -> Tensor:
    """Return independent integers uniform on {0, ..., high - 1}, on the CPU."""
    return torch.from_numpy(_numpy_generator(key).integers(high, size=shape))
