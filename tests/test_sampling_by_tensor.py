"""Laws that draw by tensor are sampled as such, given the tensors' shapes, and refused without."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from synthetic import problems
from zobench import (
    CentralStencil,
    LineEstimator,
    PerTensor,
    controlled_moments,
    derive,
    estimate,
    methods,
    moments,
    theory,
)
from zobench.kernels import legendre
from zobench.law import Gaussian, Law
from zobench.layout import CPU, Layout
from zobench.random import streams

F64 = torch.float64
POINT = torch.tensor([0.3, -0.7], dtype=F64)
BY_TENSOR = LineEstimator(PerTensor(legendre(3)), CentralStencil(), 0.5)


def cubic(x: Tensor) -> Tensor:
    """x y^2: the bias along x is that across the two variables."""
    return x[..., 0] * x[..., 1].square()


GRADIENT = torch.tensor([0.49, -0.42], dtype=F64)


@pytest.mark.parametrize(
    ("layout", "bias"), [([1, 1], 1 / 3), ({"a": (1,), "b": (1,)}, 1 / 3), ([2], 0.0), ([(1, 2)], 0.0)], ids=repr
)
def test_the_bias_across_tensors_is_that_of_the_layout(layout, bias):
    """e^2 E[r^2] of MeZO's cross-tensor bias stays where the variables are two tensors, none where they are one."""
    plain = moments(BY_TENSOR, cubic, POINT, key=4, samples=1_000_000, layout=layout)
    controlled = controlled_moments(BY_TENSOR, cubic, GRADIENT, POINT, key=4, samples=40_000, layout=layout)
    for found, mean in ((plain, plain.mean - GRADIENT), (controlled, controlled.mean)):
        z = (mean / 0.25 - torch.tensor([bias, 0.0], dtype=F64)) / (found.mean_error / 0.25)
        assert float(z.abs().max()) < 5
        planted = 1 / 3 - bias  # of the other cut
        assert abs(float(mean[0]) / 0.25 - planted) > 5 * float(found.mean_error[0]) / 0.25


def test_estimates_are_those_that_moments_averages():
    layout = {"a": (1,), "b": (1,)}
    rows = estimate(BY_TENSOR, cubic, POINT, key=4, samples=500, layout=layout)
    found = moments(BY_TENSOR, cubic, POINT, key=4, samples=500, layout=layout)
    assert torch.allclose(rows.mean(0), found.mean)
    assert not torch.allclose(rows, estimate(BY_TENSOR, cubic, POINT, key=4, samples=500, layout=[2]))
    noisy = estimate(BY_TENSOR, cubic, POINT, key=4, samples=500, noise=1.0, layout=layout)
    assert float((noisy - rows).abs().min()) > 0


@pytest.mark.parametrize(
    "estimator", [BY_TENSOR, methods.make("kerzoo-code", epsilon=0.1), methods.make("kerzoo-code", law="sphere")]
)
def test_without_a_layout_it_is_told_how_to_give_one(estimator):
    for sample in (estimate, moments):
        with pytest.raises(ValueError, match=r"draws by tensor, but x is one vector: give the shapes .* layout="):
            sample(estimator, cubic, POINT)
        sample(estimator, cubic, POINT, layout=[1, 1])
    with pytest.raises(ValueError, match="draws by tensor"):
        controlled_moments(BY_TENSOR, cubic, GRADIENT, POINT)
    with pytest.raises(TypeError, match="one of a LineEstimator"):
        controlled_moments(methods.make("kerzoo-code"), cubic, GRADIENT, POINT)
    estimate(methods.make("kerzoo-code", per_tensor=False), cubic, POINT)


@dataclass(frozen=True)
class RankOne(Law):
    """A user's law that says nothing of itself: a b^T in a matrix, normal elsewhere."""

    def direction(self, key, index, layout, batch):
        def draw(block):
            segment, name = block.segment, (key, index, block.segment.name)
            if len(segment.shape) != 2:
                return streams.normal(derive(*name), (*batch, block.size), F64, CPU)
            rows, columns = segment.shape
            a = streams.normal(derive(*name, "a"), (*batch, rows, 1), F64, CPU)
            return (a * streams.normal(derive(*name, "b"), (*batch, 1, columns), F64, CPU)).flatten(-2)

        return draw


def test_a_law_of_low_rank_sees_the_shapes():
    estimator = LineEstimator(RankOne(), CentralStencil(), 0.1)
    x, f = torch.linspace(-1, 1, 15, dtype=F64), lambda x: (x**3).sum(-1)
    rows = estimate(estimator, f, x, samples=20, layout={"weight": (4, 3), "bias": (3,)})
    ranks = torch.linalg.matrix_rank(rows[:, :12].reshape(-1, 4, 3), rtol=1e-9)
    assert ranks.tolist() == [1] * 20
    assert int(torch.linalg.matrix_rank(estimate(estimator, f, x, samples=20, layout=[15]), rtol=1e-9)) > 1  # planted
    with pytest.raises(ValueError, match=r"shapes of tensors, but x is one vector: .* layout="):
        estimate(estimator, f, x)


def test_layouts():
    net = nn.Linear(3, 2)
    wanted = (("weight", 6, (2, 3)), ("bias", 2, (2,)))
    for given in (
        {"weight": (2, 3), "bias": 2},
        dict(net.named_parameters()),
        {"weight": torch.Size((2, 3)), "bias": [2]},
    ):
        assert tuple((s.name, s.size, s.shape) for s in Layout.of(given).segments) == wanted
    assert [s.name for s in Layout.of([(2, 3), 2, ()]).segments] == ["0", "1", "2"]
    assert Layout.of(Layout.of([8])) == Layout.of([8]) and Layout.of([(2, 3), ()]).dim == 7
    estimator = methods.make("mezo")
    x, f = torch.ones(8, dtype=F64), lambda x: x.square().sum(-1)
    assert estimate(estimator, f, x, samples=2, layout=Layout.of({"weight": (2, 3), "bias": 2})).shape == (2, 8)
    for given, told in (
        ([7], "the layout has 7 entries, x has 8"), ({}, r"layout is \{\}: give the shapes"),
        ({"w": (0, 3)}, "a size of 'w' in the layout is 0"), ({"w": (True,)}, "a size of 'w' in the layout is True"),
        (["8"], "a size of '0' in the layout is '8'"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            estimate(estimator, f, x, layout=given)


def test_theory_refuses_a_law_by_tensor():
    """On a quadratic it would find no bias, whatever E[r K]."""
    f = problems.make("quadratic", dim=4)
    x = problems.start(f)
    code = methods.make("kerzoo-code", steps=10, law="gaussian").at(0)
    for predict in (theory.bias, theory.mse, theory.second_moment, theory.covariance_trace, theory.best_lr):
        with pytest.raises(ValueError, match=r"draws by tensor: sample it, zobench.moments\(..., layout=shapes\)"):
            predict(code, f, x)
    with pytest.raises(ValueError, match="draws by tensor"):
        theory.coverage(code, f)
    with pytest.raises(ValueError, match="draws by tensor"):
        theory.best_epsilon(code, f, x, 0.1)


@dataclass(frozen=True)
class Doubled(Gaussian):
    """Credits 2 u: E[credit u^T] = 2 I."""

    @property
    def second_moment(self):
        return 2.0


def test_theory_counts_the_law_s_second_moment():
    f = problems.make("quadratic", dim=4)
    x = problems.start(f)
    estimator = LineEstimator(Doubled(), CentralStencil(), 0.1)
    assert torch.allclose(theory.bias(estimator, f, x), f.gradient(x))
    assert torch.allclose(theory.bias(methods.make("mezo"), f, x), torch.zeros(4, dtype=F64))
