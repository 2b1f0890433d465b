"""Draws that name a problem: standard normals and rotations."""

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.random import streams
from zobench.random.streams import Shape


def normal(key: int, shape: Shape) -> Tensor:
    """Return independent standard normals, float64."""
    return streams.normal(key, shape, torch.float64, CPU)


def orthogonal(key: int, dim: int) -> Tensor:
    """Return a random orthogonal matrix Q (dim, dim), Q^T Q = I, uniform on the group."""
    q, r = torch.linalg.qr(normal(key, (dim, dim)))
    return q * r.diagonal().sign()
