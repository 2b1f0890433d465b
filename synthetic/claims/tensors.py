"""One r for each tensor: the bias that a layout predicts, sampled on functions with that layout and on a module."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import zobench
from synthetic import problems
from synthetic.claims.check import check
from synthetic.problems.mlp import MLP
from zobench import CentralStencil, FlatSpace, Gaussian, KernelStencil, LineEstimator, ModuleSpace, PerTensor, derive
from zobench.combination import Combination, Term
from zobench.kernels import legendre
from zobench.layout import CPU, Layout
from zobench.run.progress import bar
from zobench.run.records import Row

EPSILON = 0.02
HIDDEN, INPUTS = 6, 4
SHAPES = {"hidden.weight": (HIDDEN, INPUTS), "hidden.bias": (HIDDEN,), "output.weight": (HIDDEN,), "output.bias": (1,)}
KERNEL = legendre(3)
METHODS = {
    "MeZO": LineEstimator(Gaussian(), CentralStencil(), EPSILON),
    "shared r": LineEstimator(Gaussian(), KernelStencil(KERNEL), EPSILON),
    "one r a tensor": LineEstimator(PerTensor(KERNEL), CentralStencil(), EPSILON),
}
ACROSS = "MeZO, across tensors"
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class TwoTensors:
    """x y^2 + x^3 / 3, x and y in two tensors: MeZO's bias along x is 2 eps^2, one from each."""

    dim: int = 2

    def __call__(self, point: Tensor) -> Tensor:
        """Return f."""
        x, y = point[..., 0], point[..., 1]
        return x * y.square() + x**3 / 3

    def gradient(self, point: Tensor) -> Tensor:
        """Return (y^2 + x^2, 2 x y)."""
        x, y = point[..., 0], point[..., 1]
        return torch.stack((x.square() + y.square(), 2 * x * y), -1)


class Network(nn.Module):
    """The network of a problem "mlp" as a module: four tensors."""

    def __init__(self, problem: MLP, x: Tensor) -> None:
        super().__init__()
        self.problem = problem
        self.hidden, self.output = nn.Linear(INPUTS, HIDDEN).double(), nn.Linear(HIDDEN, 1).double()
        nn.utils.vector_to_parameters(x, self.parameters())

    def forward(self) -> Tensor:
        """Return the loss on all examples."""
        outputs = self.output(self.hidden(self.problem.features).tanh()).squeeze(-1)
        loss: Tensor = 0.5 * (outputs - self.problem.labels).square().mean()
        return loss


def rows(samples: int, seed: int) -> Iterator[Row]:
    """Measure on x y^2 + x^3 / 3, on a network as a function with a layout, and on the same network as a module."""
    toy = TwoTensors()
    point = torch.tensor([0.3, -0.7], dtype=torch.float64, device=CPU)
    yield from _sampled("x y^2 + x^3/3", toy, {"x": (1,), "y": (1,)}, point, samples, seed)
    problem = problems.make("mlp", inputs=INPUTS, hidden=HIDDEN, seed=seed)
    assert isinstance(problem, MLP)
    x = problems.start(problem, seed)
    yield from _sampled("mlp", problem, SHAPES, x, samples, seed)
    few = max(200, samples // 100)
    predicted = predictions(problem, x, SHAPES)
    for method, estimator in METHODS.items():
        drawn = module_bias(Network(problem, x), estimator, problem.gradient(x), few, seed)
        yield _row("module", method, predicted, drawn.mean(0), partial(_error, drawn), few, problem.dim)


def _sampled(name: str, problem: Any, shapes: Shapes, x: Tensor, samples: int, seed: int) -> Iterator[Row]:
    predicted = predictions(problem, x, shapes)
    for method, estimator in METHODS.items():
        key = derive("claims", "tensors", seed, name, method)
        found = zobench.controlled_moments(estimator, problem, problem.gradient(x), x, key, samples, layout=shapes)
        yield _row(name, method, predicted, found.mean, found.error_along, samples, problem.dim)


def _row(
    name: str,
    method: str,
    predicted: Mapping[str, Tensor],
    bias: Tensor,
    error: Callable[[Tensor], float],
    samples: int,
    dim: int,
) -> Row:
    """The bias along MeZO's bias across tensors, as a share of that."""
    unit = predicted[ACROSS] / predicted[ACROSS].square().sum()
    about = {"problem": name, "dim": dim, "epsilon": EPSILON, "samples": samples}
    share, measured = float(predicted[method] @ unit), (float(bias @ unit), error(unit))
    return check("tensors", "bias across tensors against MeZO's", method, share, measured, **about)


def predictions(problem: Any, x: Tensor, shapes: Shapes) -> dict[str, Tensor]:
    """Return the bias of each method to order e^2: e^2/2 (m_3 sum_{j in l} f_ijj + m_1 E[r^2] sum_{j not in l} f_ijj)
    for i in tensor l under one r a tensor, e^2/2 m_3 sum_j f_ijj under a shared one.

    ACROSS is the part of MeZO's from j in other tensors than i.
    """
    thirds = third_derivatives(problem, x)
    sizes = torch.tensor([math.prod(shape) for shape in shapes.values()], dtype=torch.int64, device=CPU)
    tensor = torch.repeat_interleave(sizes)
    within = (thirds * (tensor[:, None] == tensor)).sum(1)
    across, third = thirds.sum(1) - within, KERNEL.moment(3)
    factor = EPSILON**2 / 2
    return {
        ACROSS: factor * across,
        "MeZO": factor * (within + across),
        "shared r": factor * third * (within + across),
        "one r a tensor": factor * (third * within + KERNEL.moment(1) / 3 * across),
    }


def third_derivatives(f: Any, x: Tensor) -> Tensor:
    """Return f_ijj, (d, d) in i and j, from two backward passes for each j."""
    point = x.clone().requires_grad_()
    slopes = torch.autograd.grad(f(point), point, create_graph=True)[0]
    columns = []
    for j, slope in enumerate(slopes):
        curvature = torch.autograd.grad(slope + 0.0 * point.sum(), point, create_graph=True)[0][j]
        columns.append(torch.autograd.grad(curvature + 0.0 * point.sum(), point, retain_graph=True)[0])
    return torch.stack(columns, 1)


def module_bias(module: Network, estimator: LineEstimator, gradient: Tensor, samples: int, seed: int) -> Tensor:
    """Return draws (samples, d) whose mean is the bias: estimates of the module's loss, averaged over u and -u, less
    their first-order parts.
    """
    space, exact = ModuleSpace(module), FlatSpace(torch.zeros_like(gradient), Layout.of(SHAPES))
    draws = []
    for i in bar(range(samples), desc="module", unit="estimate"):
        plan = estimator.ask(derive("claims", "module", seed, i), ())
        coefficient = (plan.weights * space.losses(module, plan)).sum(-1)
        one = torch.ones(1, dtype=torch.float64, device=CPU)
        probe, credit = (exact.dense(Combination((Term(law, plan.key, one),))) for law in (plan.law, plan.law.credit))
        first = (plan.weights * plan.offsets).sum(-1) * (probe @ gradient)
        draws.append((coefficient - first) * credit)
    return torch.stack(draws).reshape(samples, -1)


def _error(draws: Tensor, direction: Tensor) -> float:
    values = draws @ direction
    return float(values.std()) / math.sqrt(len(values))
