"""Problems that are means over examples, so that minibatches make sense."""

from abc import abstractmethod
from dataclasses import Field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from synthetic.problems.exact import ExactProblem, differentiable


class Empirical(ExactProblem):
    """f(x) = mean_i l_i(x) over the rows of `features` (N, p) and `labels` (N,); a penalty belongs to every l_i."""

    features: Tensor
    labels: Tensor
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def examples(self) -> int:
        """N, the number of examples."""
        return len(self.labels)

    @abstractmethod
    def example_losses(self, x: Tensor) -> Tensor:
        """Return l_i(x) (..., N)."""

    def example_gradients(self, x: Tensor) -> Tensor:
        """Return grad l_i(x) (N, d) at one point x (d,). Cost: N evaluations of all losses, and a reverse pass."""
        with differentiable():
            points = x.detach().double().repeat(self.examples, 1).requires_grad_()
            (gradients,) = torch.autograd.grad(self.example_losses(points).diagonal().sum(), points)
        return gradients

    def minibatch(self, indices: Tensor) -> Self:
        """Return the problem on these examples (B,), repeated ones counted as often."""
        return replace(self, features=self.features[indices], labels=self.labels[indices])

    def gradient_covariance(self, x: Tensor) -> Tensor:
        """Return the covariance (d, d) of the gradient of one example drawn at random, at one point x (d,).

        The gradient of a minibatch of B examples, drawn with replacement, has 1 / B of it.
        """
        gradients = self.example_gradients(x)
        apart = gradients - gradients.mean(0)
        return apart.T @ apart / self.examples
