"""Every outcome of an estimate, by plain code: directions with probabilities, stencils as finite mixtures."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from synthetic import problems
from zobench import Coordinate, Gaussian, Rademacher, RandomMask, Sphere, Uniform

KERNELS: dict[str, Callable[[Tensor], Tensor]] = {
    "kernel1": lambda r: 3 * r,
    "kernel3": lambda r: 15 / 4 * r * (5 - 7 * r**2),
    "kernel5": lambda r: 105 / 64 * r * (99 * r**4 - 126 * r**2 + 35),
    "printed": lambda r: 195 / 64 * r * (99 * r**4 - 126 * r**2 + 35),
}
FIXED = {
    "forward": ((1, 0), (1, -1)),
    "central": ((1, -1), (1 / 2, -1 / 2)),
    "richardson": ((1, -1, 2, -2), (2 / 3, -2 / 3, -1 / 12, 1 / 12)),
}


class Outcomes(NamedTuple):
    """A stencil's nodes and weights, both (Q, m), with probabilities (Q,); at slopes the last node is D f(x)[u]."""

    probabilities: Tensor
    nodes: Tensor
    weights: Tensor
    slopes: bool = False


class Moments(NamedTuple):
    mean: Tensor
    covariance_trace: float
    curvature: float  # E[g^T W g]


@cache
def outcomes(stencil: str, scale: float = 1.0) -> Outcomes:
    if stencil in FIXED:
        nodes, weights = torch.tensor(FIXED[stencil], dtype=torch.float64)[:, None]
        return Outcomes(torch.ones(1, dtype=torch.float64), nodes, scale * weights)
    r, p = (torch.from_numpy(v) for v in np.polynomial.legendre.leggauss(14))  # exact for r^12 K^2, of degree 22
    k = scale * KERNELS[stencil](r)
    return Outcomes(p / 2, torch.stack((r, -r), -1), torch.stack((k, -k), -1) / 2)


def enumerate_estimates(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    e: float,
    u: Tensor,
    p: Tensor,
    stencil: Outcomes,
    noise: float = 0.0,
    weight: Tensor | None = None,
) -> Moments:
    """Moments of sum_k (w_k / e) (f(x + e r_k u) ± noise) u over all u (N, d), r and signs."""
    values = f(x + e * stencil.nodes[..., None, None] * u)  # (Q, m, N)
    if stencil.slopes:
        values[:, -1] = e * (u @ backward(f, x))
    m = stencil.nodes.shape[-1]
    errors = itertools.product((-noise, noise), repeat=m) if noise else [(0.0,) * m]
    weight = torch.zeros(u.shape[-1], u.shape[-1], dtype=torch.float64) if weight is None else weight
    moments = []
    for error in errors:
        noisy = values + torch.tensor(error, dtype=torch.float64)[:, None]
        slopes = (stencil.weights[..., None] * noisy).sum(1) / e  # (Q, N)
        mean = (stencil.probabilities @ slopes * p) @ u
        squares = stencil.probabilities @ slopes.square() * p
        moments.append((mean, float(squares @ u.square().sum(-1)), float(squares @ ((u @ weight) * u).sum(-1))))
    mean = torch.stack([first for first, _, _ in moments]).mean(0)
    second, curvature = (sum(m[i] for m in moments) / len(moments) for i in (1, 2))
    return Moments(mean, second - float(mean @ mean), curvature)


def backward(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient by backpropagation."""
    point = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(f(point), point)
    return gradient


def sign_vectors(dim: int) -> tuple[Tensor, Tensor]:
    u = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=dim)), dtype=torch.float64)
    return u, torch.full((len(u),), 1 / len(u), dtype=torch.float64)


def signed_axes(dim: int) -> tuple[Tensor, Tensor]:
    eye = math.sqrt(dim) * torch.eye(dim, dtype=torch.float64)
    return torch.cat((eye, -eye)), torch.full((2 * dim,), 1 / (2 * dim), dtype=torch.float64)


def normal_entry(count: int = 10) -> tuple[list[float], list[float]]:
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return nodes.tolist(), (weights / weights.sum()).tolist()


def uniform_entry(count: int = 10) -> tuple[list[float], list[float]]:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return (math.sqrt(3) * nodes).tolist(), (weights / 2).tolist()


def masked_entry(nodes: list[float], weights: list[float], density: float) -> tuple[list[float], list[float]]:
    return [0.0, *(v / math.sqrt(density) for v in nodes)], [1 - density, *(density * w for w in weights)]


def products(nodes: list[float], weights: list[float], dim: int) -> tuple[Tensor, Tensor]:
    """Every vector of independent entries, with its probability."""
    u = torch.tensor(list(itertools.product(nodes, repeat=dim)), dtype=torch.float64)
    return u, torch.tensor(list(itertools.product(weights, repeat=dim)), dtype=torch.float64).prod(-1)


def gauss_hermite(dim: int, count: int = 10) -> tuple[Tensor, Tensor]:
    return products(*normal_entry(count), dim)


def circle(count: int = 64) -> tuple[Tensor, Tensor]:
    angle = torch.arange(count, dtype=torch.float64) * (2 * math.pi / count) + 0.1
    u = math.sqrt(2) * torch.stack((angle.cos(), angle.sin()), -1)
    return u, torch.full((count,), 1 / count, dtype=torch.float64)


def ball_surface(heights: int = 12, angles: int = 32) -> tuple[Tensor, Tensor]:
    """The sphere of radius sqrt(3) in d = 3: Gauss-Legendre in height (Archimedes) times the trapezoidal rule."""
    nodes, weights = np.polynomial.legendre.leggauss(heights)
    angle = np.arange(angles) * (2 * math.pi / angles)
    h, a = (v.ravel() for v in np.meshgrid(nodes, angle, indexing="ij"))
    u = math.sqrt(3) * np.stack((h, np.sqrt(1 - h**2) * np.cos(a), np.sqrt(1 - h**2) * np.sin(a)), -1)
    return torch.from_numpy(u), torch.from_numpy(np.repeat(weights, angles) / (2 * angles))


@dataclass(frozen=True)
class Case:
    law: object
    directions: tuple[Tensor, Tensor]

    @property
    def dim(self) -> int:
        return self.directions[0].shape[-1]


CASES = {
    "rademacher-8": Case(Rademacher(), sign_vectors(8)),
    "rademacher-1": Case(Rademacher(), sign_vectors(1)),
    "coordinate-8": Case(Coordinate(), signed_axes(8)),
    "coordinate-3": Case(Coordinate(), signed_axes(3)),
    "gaussian-2": Case(Gaussian(), gauss_hermite(2)),
    "gaussian-3": Case(Gaussian(), gauss_hermite(3)),
    "uniform-2": Case(Uniform(), products(*uniform_entry(), 2)),
    "uniform-3": Case(Uniform(), products(*uniform_entry(), 3)),
    "masked-signs-3": Case(RandomMask(Rademacher(), 0.3), products(*masked_entry([-1.0, 1.0], [0.5, 0.5], 0.3), 3)),
    "masked-gaussian-2": Case(RandomMask(Gaussian(), 0.9), products(*masked_entry(*normal_entry(), 0.9), 2)),
    "sphere-2": Case(Sphere(), circle()),
    "sphere-3": Case(Sphere(), ball_surface()),
}


def enumerated(
    case: Case,
    f,
    x: Tensor,
    epsilon: float,
    stencil: str | Outcomes,
    scale: float = 1.0,
    noise: float = 0.0,
    weight: Tensor | None = None,
) -> Moments:
    e = epsilon / math.sqrt(case.dim) if isinstance(case.law, Coordinate) else epsilon
    found = outcomes(stencil, scale) if isinstance(stencil, str) else stencil
    return enumerate_estimates(f, x, e, *case.directions, found, noise, weight)


@cache
def setting(case: str, problem: str, seed: int = 0):
    f = problems.make(problem, dim=CASES[case].dim, seed=seed)
    return CASES[case], f, problems.start(f, seed)
