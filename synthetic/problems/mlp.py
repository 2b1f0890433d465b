"""A small network: tanh units, one hidden layer."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from synthetic.problems.draws import normal
from synthetic.problems.empirical import Empirical
from synthetic.problems.formula import Formula
from synthetic.problems.series import softplus
from zobench.layout import CPU
from zobench.naming import require_known
from zobench.random import streams
from zobench.random.keys import derive

LOSSES = ("squared", "logistic")


@dataclass(frozen=True, eq=False)
class MLP(Formula, Empirical):
    """mean_i l(w . tanh(W a_i + b) + c, y_i) in x = (W, b, w, c), a_i the rows of `features` (N, p): d = h (p + 2) + 1.

    `loss` is "squared", (z - y)^2 / 2, or "logistic", log(1 + exp(-y z)) with y = ±1. `centre` (d,) is the network that
    made the labels: with the squared loss it attains the minimum 0, as do its permutations.
    """

    name: str
    features: Tensor
    labels: Tensor
    centre: Tensor
    loss: str = "squared"

    @property
    def dim(self) -> int:
        """Number of weights."""
        return self.centre.shape[0]

    @property
    def minimum(self) -> float | None:
        """0 where the centre attains it, else None."""
        return 0.0 if self.loss == "squared" and float(self(self.centre)) < 1e-24 else None

    def example_losses(self, x: Tensor) -> Tensor:
        """Return the loss of each example (..., N)."""
        losses: Tensor = self._losses(x.double())
        return losses

    def formula(self, x: Any) -> Any:
        """Return f(x)."""
        return self._losses(x).mean(-1)

    def _losses(self, x: Any) -> Any:
        output = network(x, self.features, (self.dim - 1) // (self.features.shape[1] + 2))
        if self.loss == "squared":
            return 0.5 * (output - self.labels).square()
        return softplus(output * -self.labels)


def network(x: Any, features: Tensor, hidden: int) -> Any:
    """Return w . tanh(W a_i + b) + c for each row a_i of features, (..., N); x is a tensor or a series."""
    inputs = features.shape[1]
    matrix, bias = hidden * inputs, hidden * (inputs + 1)
    inner = x[..., :matrix].unflatten(-1, (hidden, inputs)) @ features.T + x[..., matrix:bias, None]
    return (inner.tanh() * x[..., bias:-1, None]).sum(-2) + x[..., -1:]


def mlp(
    dim: int | None = None, inputs: int = 4, hidden: int = 6, examples: int = 32, loss: str = "squared", seed: int = 0
) -> MLP:
    """Return a network of `hidden` tanh units on normal features, with labels of another network of its size, drawn at
    random: its outputs for "squared", their signs drawn with logit 2 z for "logistic".

    Raises:
        UnknownNameError: no such loss.
        ValueError: inputs, hidden or examples < 1, or dim is given and is not hidden (inputs + 2) + 1.
    """
    require_known(loss, LOSSES, "loss")
    if min(inputs, hidden, examples) < 1:
        raise ValueError(f"inputs is {inputs}, hidden {hidden}, examples {examples}: give 1 or more of each")
    own = hidden * (inputs + 2) + 1
    if dim is not None and dim != own:
        raise ValueError(f"dim is {dim}: {inputs} inputs and {hidden} units make hidden (inputs + 2) + 1 = {own}")
    name = ("mlp", seed, inputs, hidden)
    features = normal(derive(*name, "features"), (examples, inputs))
    scales = [inputs**-0.5] * hidden * inputs + [0.5] * hidden + [hidden**-0.5] * hidden + [0.5]
    scale = torch.tensor(scales, dtype=torch.float32, device=CPU)  # published rows have them rounded
    teacher = normal(derive(*name, "teacher"), (own,)) * scale.double()
    labels = network(teacher, features, hidden)
    if loss == "logistic":
        heads = streams.uniform(derive(*name, "labels"), (examples,)) < torch.tanh(labels)
        labels = torch.where(heads, 1.0, -1.0).double()
    return MLP("mlp", features, labels, teacher, loss)
