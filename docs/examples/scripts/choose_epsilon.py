"""The epsilon of least error for a given noise of the losses, and what a wrong one costs."""

import torch

from zobench import methods, theory
from zobench.problems import polynomial

f = polynomial("x0^2 + 2 x1^2 + x0^3 x1 + x1^4", dim=2)
x = torch.tensor([0.5, -0.4], dtype=torch.float64)
noise = 0.05  # standard deviation of a loss
for name in ("mezo", "kerzoo"):
    best = theory.best_epsilon(methods.make(name), f, x, noise=noise)
    errors = {
        factor: theory.mse(methods.make(name, epsilon=factor * best), f, x, noise=noise) ** 0.5
        for factor in (0.1, 0.5, 1.0, 2.0)
    }
    told = ", ".join(f"{error:.2f} at {factor:g} of it" for factor, error in errors.items())
    print(f"{name}: the best epsilon is {best:.3f}; the root mean squared error is {told}")
