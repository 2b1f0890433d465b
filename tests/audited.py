"""Targets of audits: right ones and ones with a planted mistake, of every kind."""

import numpy as np
import torch

from zobench import CentralStencil, Gaussian, LineEstimator

ESTIMATOR = LineEstimator(Gaussian(), CentralStencil(), 0.1, 2)
SOMETHING = "no target"


def make(epsilon=0.1, n=1):
    return LineEstimator(Gaussian(), CentralStencil(), epsilon, n)


class Own(LineEstimator):
    """A class of estimators, which has `ask` and `tell` as populations have."""

    def __init__(self, epsilon=0.1, n=1):
        super().__init__(Gaussian(), CentralStencil(), epsilon, n)


def right(f, x, seed, epsilon=0.1):
    u = np.random.default_rng(seed).standard_normal(len(x))
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * u


def short(f, x, seed, epsilon=0.1):
    """On the unit sphere without its factor d."""
    u = np.random.default_rng(seed).standard_normal(len(x))
    u /= np.linalg.norm(u)
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * u


def tied(f, x, seed, epsilon=0.1):
    """The same noise for the second half of the coordinates."""
    u = np.random.default_rng(seed).standard_normal(len(x) // 2)
    u = np.concatenate([u, u])
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * u


def lame(f, x, seed, epsilon=0.1):
    """The last coordinate never moves."""
    u = np.random.default_rng(seed).standard_normal(len(x))
    u[-1] = 0.0
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon) * u


def undivided(f, x, seed, epsilon=0.1):
    """One point, without its factor 1 / epsilon; x is evaluated and does not count."""
    f(x)
    u = np.random.default_rng(seed).choice([-1.0, 1.0], len(x))
    return f(x + epsilon * u) * u


def three_points(f, x, seed, epsilon=0.1):
    """The one-sided difference of second order."""
    u = np.random.default_rng(seed).choice([-1.0, 1.0], len(x))
    return (-1.5 * f(x) + 2 * f(x + epsilon * u) - 0.5 * f(x + 2 * epsilon * u)) / epsilon * u


def staircase(f, x, seed, epsilon=0.1, n=3):
    """Central differences at n distances along n directions."""
    rows = np.random.default_rng(seed).standard_normal((n, len(x)))
    steps = epsilon * np.arange(1, n + 1) / n
    return sum((f(x + e * u) - f(x - e * u)) / (2 * n * e) * u for e, u in zip(steps, rows, strict=True))


def two_kinds(f, x, seed, epsilon=0.1):
    """A central difference and, to a third, a backward one: lines of two and of one point beside x."""
    u, v = np.random.default_rng(seed).standard_normal((2, len(x)))
    return (f(x + epsilon * u) - f(x - epsilon * u)) / (3 * epsilon) * u + (f(x) - f(x - epsilon * v)) / (
        3 * epsilon
    ) * v


def signs(f, x, seed, epsilon=0.1):
    """Not linear in the values of f."""
    u = np.random.default_rng(seed).choice([-1.0, 1.0], len(x))
    return np.sign(f(x + epsilon * u) - f(x - epsilon * u)) * u


def less_the_mean(f, x, seed, epsilon=0.1):
    """Each value adds to all directions: no line of its own."""
    rows = np.random.default_rng(seed).standard_normal((4, len(x)))
    values = np.array([f(x + epsilon * u) for u in rows])
    return (values - values.mean()) @ rows / (4 * epsilon)


def deaf(f, x):
    """Two arguments and nothing made of them that is a vector."""
    return np.zeros(1)


class Optimizer(torch.optim.Optimizer):
    """A step of -lr g with Rademacher directions; `gain` is a planted factor."""

    def __init__(self, params, lr=1.0, epsilon=0.1, gain=1.0):
        super().__init__(params, {"lr": lr, "epsilon": epsilon, "gain": gain})

    @torch.no_grad()
    def step(self, closure=None):
        (group,) = self.param_groups
        (p,) = group["params"]
        u, e = torch.randint(0, 2, p.shape).double() * 2 - 1, group["epsilon"]
        losses = []
        for sign in (1, -1):
            p.add_(u, alpha=sign * e)
            losses.append(closure())
            p.add_(u, alpha=-sign * e)
        p.add_(u, alpha=-float(group["lr"] * group["gain"] * (losses[0] - losses[1]) / (2 * e)))


class Population:
    """An antithetic pair that keeps its gradient."""

    def __init__(self, x, seed=0, epsilon=0.1, gain=1.0):
        self.x, self.epsilon, self.gain = x, epsilon, gain
        self.u = np.random.default_rng(seed).standard_normal(len(x))

    def ask(self):
        return [self.x + self.epsilon * self.u, self.x - self.epsilon * self.u]

    def tell(self, points, values):
        self.gradient = self.gain * (values[0] - values[1]) / (2 * self.epsilon) * self.u


PROGRAM = """
import json, random, sys
for line in sys.stdin:
    asked = json.loads(line)
    x, e, chance = asked["x"], asked["epsilon"], random.Random(asked["seed"])
    u = [chance.choice((-1, 1)) for _ in x]
    values = []
    for sign in (1, -1):
        print(json.dumps({"point": [a + sign * e * b for a, b in zip(x, u)]}), flush=True)
        values.append(json.loads(sys.stdin.readline())["value"])
    print(json.dumps({"estimate": [GAIN * (values[0] - values[1]) / (2 * e) * b for b in u]}), flush=True)
"""
"""A program that speaks the protocol; GAIN stands for a planted factor."""
