"""A small network in its weights."""

from dataclasses import dataclass

import torch
from torch import Tensor

from zobench.layout import CPU
from zobench.numbers import count, store


@dataclass(frozen=True)
class Network:
    """f(x) = mean_i (w . tanh(W a_i + b) - y_i)^2 / 2 in x = (W, b, w), d = hidden (inputs + 2), on examples a_i and
    y_i that are sines of their numbers; batched: x (..., d) float64 -> (...).

    The gradient is by reverse differentiation, exact to rounding.

    Raises:
        ValueError: `hidden`, `inputs` or `examples` is no whole number from 1.
    """

    hidden: int = 2
    inputs: int = 2
    examples: int = 4

    def __post_init__(self) -> None:
        store(self, **{name: count(name, getattr(self, name)) for name in ("hidden", "inputs", "examples")})

    @property
    def dim(self) -> int:
        """Number of weights."""
        return self.hidden * (self.inputs + 2)

    def __call__(self, x: Tensor) -> Tensor:
        """Return f(x) (...)."""
        x, cut = x.double(), self.hidden * self.inputs
        weights = x[..., :cut].unflatten(-1, (self.hidden, self.inputs))
        steps = torch.arange(self.examples * (self.inputs + 1), dtype=torch.float64, device=CPU)
        data = (1.7 * steps + 0.3).sin().view(self.examples, -1)
        inner = weights @ data[:, 1:].T + x[..., cut : cut + self.hidden, None]
        output = (inner.tanh() * x[..., cut + self.hidden :, None]).sum(-2)
        loss: Tensor = (output - data[:, 0]).square().mean(-1) / 2
        return loss

    def value(self, x: Tensor) -> Tensor:
        """Return f(x) (...)."""
        return self(x)

    def gradient(self, x: Tensor) -> Tensor:
        """Return grad f(x) (..., d)."""
        with torch.inference_mode(False), torch.enable_grad():
            point = x.detach().double().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self(point).sum(), point)
        return gradient
