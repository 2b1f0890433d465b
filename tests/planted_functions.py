"""Wrong plain functions, each with the check that is meant for its mistake."""

import random

import numpy as np
import torch
from planted_estimators import F64, PLANTED, Planted

from zobench.testing import Promises, from_function


def function(mistake: str, caught_by: str, array: str = "numpy", promises: Promises = Promises(mean=1.0)):
    def kept(g):
        PLANTED[g.__name__] = Planted(mistake, caught_by, lambda: from_function(g, array, promises))
        return g

    return kept


def unit_direction(x, seed):
    u = np.random.default_rng(seed).standard_normal(len(x))
    return u / np.linalg.norm(u)


@function("the unit sphere without the factor d", "first-order")
def without_dimension(f, x, seed, epsilon=1e-2):
    u = unit_direction(x, seed)
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * u


@function("a factor 1/epsilon too much", "first-order")
def over_epsilon(f, x, seed, epsilon=1e-2):
    u = np.random.default_rng(seed).standard_normal(len(x))
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon**2) * u


@function("ignores its seed", "keys")
def ignored_seed(f, x, seed, epsilon=1e-2):
    u = np.random.default_rng(0).standard_normal(len(x))
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * u


@function("draws again for the step", "first-order")
def drawn_twice(f, x, seed, epsilon=1e-2):
    rng = np.random.default_rng(seed)
    u, v = rng.standard_normal((2, len(x)))
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * v


@function("leaves x at its last point", "unchanged")
def left_perturbed(f, x, seed, epsilon=1e-2):
    u = np.random.default_rng(seed).standard_normal(len(x))
    x += epsilon * u
    plus = f(x)
    x -= 2 * epsilon * u
    return (plus - f(x)) / (2 * epsilon) * u


@function("takes its seed, and draws from the module random", "global-state")
def other_generator(f, x, seed, epsilon=1e-2):
    u = np.array([random.gauss(0.0, 1.0) for _ in x])
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * u


@function("evaluates the base point and says nothing of it", "evaluations", promises=Promises(mean=1.0, evaluations=2))
def one_more(f, x, seed, epsilon=1e-2):
    u = np.random.default_rng(seed).standard_normal(len(x))
    best = f(x)
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * u + 0 * best


@function("n directions, divided by the square root of n", "directions", "torch", Promises(mean=1.0, directions=True))
def root_of_n(f, x, seed, epsilon=1e-2, n=1):
    generator = torch.Generator().manual_seed(seed)
    g = torch.zeros_like(x)
    for _ in range(n):
        u = torch.randn(len(x), generator=generator, dtype=F64)
        g += (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * u
    return g / n**0.5


@function("looks around another point", "stationary", promises=Promises(mean=1.0, quadratic=True))
def aside(f, x, seed, epsilon=1e-2):
    u = np.random.default_rng(seed).standard_normal(len(x))
    y = x + 0.5
    return (f(y + epsilon * u) - f(y - epsilon * u)) / (2 * epsilon) * u
