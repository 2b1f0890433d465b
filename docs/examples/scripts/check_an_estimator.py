"""Bias, variance and error of a method, measured and predicted."""

import torch

from zobench import methods, moments, theory
from zobench.problems import polynomial

f = polynomial("x0^2 + 2 x1^2 + x0^3 x1 + x1^4", dim=2)  # every derivative is known
x = torch.tensor([0.5, -0.4], dtype=torch.float64)
print(f"{'method':12}{'bias measured':>30}{'predicted':>22}{'root mean squared error':>26}")
for name in ("mezo", "kerzoo", "richardson", "forward"):
    estimator = methods.make(name, epsilon=0.5)
    found = moments(estimator, f, x, samples=200_000)
    bias, errors = found.mean - f.gradient(x), found.mean_error
    measured = ", ".join(f"{b:+.3f}±{e:.3f}" for b, e in zip(bias.tolist(), errors.tolist(), strict=True))
    predicted = ", ".join(f"{b:+.3f}" for b in theory.bias(estimator, f, x).tolist())
    print(f"{name:12}{measured:>30}{predicted:>22}{theory.mse(estimator, f, x) ** 0.5:>26.2f}")
