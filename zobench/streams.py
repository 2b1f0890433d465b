"""Streams of random numbers, one for each key.

On the CPU float64 normals come from NumPy's SFC64 seeded with 128 bits, and a shorter draw is a prefix of a longer one
with the same key and row length. float32 normals come from torch's generator, three times faster; it reads 32 bits of
the seed, so two of B blocks of a direction share their numbers with probability about B^2 / 2^33. On another device
torch's generator of that device draws: other numbers, the same law.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from zobench.keys import derive

Shape = tuple[int, ...]
Stream = Callable[[int, Shape, torch.dtype, torch.device], Tensor]


def _numpy_generator(key: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(np.random.SeedSequence((key, derive(key, "high")))))


def _torch_generator(key: int, device: torch.device) -> torch.Generator:
    return torch.Generator(device=device).manual_seed(key)


def normal(key: int, shape: Shape, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return independent standard normals."""
    if device.type == "cpu" and dtype == torch.float64:
        return torch.from_numpy(_numpy_generator(key).standard_normal(shape))
    return torch.randn(shape, dtype=dtype, device=device, generator=_torch_generator(key, device))


def signs(key: int, shape: Shape, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return independent signs, +1 or -1 with probability 1/2, one random bit each."""
    if device.type != "cpu":
        bits = torch.randint(2, shape, dtype=torch.int8, device=device, generator=_torch_generator(key, device))
    else:
        count = math.prod(shape)
        octets = np.frombuffer(_numpy_generator(key).bytes((count + 7) // 8), dtype=np.uint8)
        bits = torch.from_numpy(np.unpackbits(octets, count=count).reshape(shape))
    return bits.to(dtype).mul_(2).sub_(1)


def uniform(key: int, shape: Shape) -> Tensor:
    """Return independent float64 uniforms on [-1, 1), on the CPU."""
    return torch.from_numpy(_numpy_generator(key).random(shape)).mul_(2).sub_(1)


def integers(key: int, shape: Shape, high: int) -> Tensor:
    """Return independent integers uniform on {0, ..., high - 1}, on the CPU."""
    return torch.from_numpy(_numpy_generator(key).integers(high, size=shape))
