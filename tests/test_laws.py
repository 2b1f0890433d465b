"""Laws beyond independent directions: orthogonal within a step, distinct coordinates, one reach for each tensor."""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zobench
from synthetic import problems
from zobench import (
    CentralStencil,
    Combination,
    Coordinate,
    FlatSpace,
    Gaussian,
    Isotropic,
    KernelStencil,
    Law,
    LineEstimator,
    ModuleSpace,
    Orthogonal,
    PerTensor,
    PerTensorCredit,
    Rademacher,
    Sphere,
    Term,
    estimate,
    kernels,
    query,
    theory,
)
from zobench.kernels import chebyshev, legendre, optimal, rescaled, shrunk
from zobench.law import LAWS
from zobench.layout import BLOCK_SIZE, Layout, Segment

pytestmark = pytest.mark.usefixtures("one_thread")

F64 = torch.float64
LAYOUTS = {
    "one": Layout.flat(6, F64, torch.device("cpu")),
    "two": Layout((Segment("a", 2), Segment("b", 4))),
    "float32": Layout((Segment("a", 2, torch.float32), Segment("b", 4, torch.float32))),
}


def directions(law, key: int, n: int, layout: Layout, batch=()) -> Tensor:
    """(*batch, n, d), float64."""
    rows = []
    for i in range(n):
        draw = law.direction(key, i, layout, batch)
        parts = [draw(block) for block in layout.blocks]
        shapes = [(*batch, block.size) for block in layout.blocks]
        rows.append(torch.cat([torch.zeros(s) if p is None else p for p, s in zip(parts, shapes, strict=True)], -1))
    return torch.stack(rows, -2).double()


def covariance_z(u: Tensor, wanted: Tensor) -> float:
    """The largest |z| of the mean of u u^T over samples (N, d)."""
    products = u.unsqueeze(-1) * u.unsqueeze(-2)
    error = products.std(0) / len(u) ** 0.5
    return float(((products.mean(0) - wanted).abs() / (error + 1e-12)).max())


@pytest.mark.parametrize("batch", [(), (3, 5)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("n", [1, 4, 6])
@pytest.mark.parametrize("law", [Orthogonal(), Coordinate(replace=False)], ids=repr)
def test_the_directions_of_a_step_are_orthogonal_and_of_length_sqrt_d(law, n, layout, batch):
    u = directions(law, 9, n, LAYOUTS[layout], batch)
    gram = u @ u.mT
    tolerance = 1e-4 if layout == "float32" else 1e-11
    assert torch.allclose(gram, 6.0 * torch.eye(n, dtype=F64).expand_as(gram), atol=tolerance)
    assert law.orthogonal
    assert not torch.allclose(u, directions(law, 10, n, LAYOUTS[layout], batch))


@pytest.mark.parametrize("layout", ["one", "two"])
def test_orthogonal_directions_are_gram_schmidt_of_gaussians(layout):
    """Both ways of orthogonalising are the Q of Householder's method, with a positive diagonal of R."""
    gaussians = directions(Gaussian(), 5, 6, LAYOUTS[layout], (50,))
    q, r = torch.linalg.qr(gaussians.mT)
    wanted = (q * r.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)).mT * math.sqrt(6)
    found = directions(Orthogonal(), 5, 6, LAYOUTS[layout], (50,))
    assert torch.allclose(found, wanted, atol=1e-9)
    assert torch.allclose(found[:, 0], directions(Sphere(), 5, 1, LAYOUTS[layout], (50,))[:, 0], rtol=1e-14)


def test_nearly_parallel_gaussians_still_give_orthogonal_directions():
    """In dimension 2 thousands of pairs of draws are nearly parallel: projecting once would not do."""
    layout = Layout.flat(2, F64, torch.device("cpu"))
    u = directions(Orthogonal(), 1, 2, layout, (200_000,))
    assert float((u[:, 0] * u[:, 1]).sum(-1).abs().max()) < 1e-14
    first, second = directions(Gaussian(), 1, 2, layout, (200_000,)).unbind(1)
    unit = first / first.norm(dim=-1, keepdim=True)
    once = second - (second * unit).sum(-1, keepdim=True) * unit
    planted = (unit * once / once.norm(dim=-1, keepdim=True)).sum(-1)
    assert float(planted.abs().max()) > 1e-12


@pytest.mark.parametrize("index", [0, 2, 4])
def test_each_orthogonal_direction_is_uniform_on_the_sphere(index):
    layout, d = Layout.flat(5, F64, torch.device("cpu")), 5
    u = directions(Orthogonal(), 77, index + 1, layout, (200_000,))[:, -1]
    assert covariance_z(u, torch.eye(d, dtype=F64)) < 5
    assert covariance_z(1.01 * u, torch.eye(d, dtype=F64)) > 5  # planted: 1 % too long
    fourth = u**4
    error = fourth.std(0) / len(u) ** 0.5
    assert float(((fourth.mean(0) - 3 * d / (d + 2)).abs() / error).max()) < 5
    assert float((u.mean(0).abs() / (u.std(0) / len(u) ** 0.5)).max()) < 5


@pytest.mark.parametrize("law", ["orthogonal", "distinct-coordinate"])
def test_as_many_directions_as_dimensions_give_the_gradient(law):
    """Slope u_i averaged over the d directions of a frame: f = a . x is recovered exactly, by every estimate."""
    a = torch.tensor([1.0, -2.0, 3.0, 0.5, 0.0], dtype=F64)
    estimator = LineEstimator(LAWS[law], CentralStencil(), 0.1, n=5)
    rows = estimate(estimator, lambda x: x @ a, torch.zeros(5, dtype=F64), samples=20)
    assert torch.allclose(rows, a.expand(20, 5), atol=1e-12)
    independent = LineEstimator(LAWS["sphere"], CentralStencil(), 0.1, n=5)
    assert not torch.allclose(estimate(independent, lambda x: x @ a, torch.zeros(5, dtype=F64))[0], a, atol=0.1)


def axes(law, key: int, n: int, dim: int, batch) -> Tensor:
    layout = Layout.flat(dim, F64, torch.device("cpu"))
    return directions(law, key, n, layout, batch).abs().argmax(-1)


def test_distinct_coordinates_are_a_uniform_prefix_of_a_permutation():
    found = axes(Coordinate(replace=False), 4, 3, 4, (240_000,))
    assert bool((found.sort(-1).values.diff(dim=-1) > 0).all())
    codes = found @ torch.tensor([16, 4, 1])
    values, counts = codes.unique(return_counts=True)
    assert len(values) == 24
    z = (counts.double() - 10_000) / math.sqrt(10_000 * 23 / 24)
    assert float(z.abs().max()) < 5
    assert abs(float(counts[0]) * 1.06 - 10_000) / math.sqrt(10_000) > 5 or float(z[0]) < 0  # planted: 6 % too many
    again = axes(Coordinate(), 4, 3, 4, (1000,))
    assert torch.equal(again[:, 0], axes(Coordinate(replace=False), 4, 3, 4, (1000,))[:, 0])
    assert bool((again[:, 0] == again[:, 1]).any())  # with replacement they meet


def test_all_coordinates_of_a_large_space_without_listing_them():
    layout = Layout((Segment("w", 3 * BLOCK_SIZE),))
    seen = set()
    for i in range(20):
        draw = Coordinate(replace=False).direction(3, i, layout, ())
        hits = [block.offset + int(u.abs().argmax()) for block in layout.blocks if (u := draw(block)) is not None]
        seen.update(hits)
        assert len(hits) == 1
    assert len(seen) == 20


@pytest.mark.parametrize("law", [Orthogonal(), Coordinate(replace=False)], ids=repr)
def test_more_directions_than_dimensions_are_refused(law):
    estimator = LineEstimator(law, CentralStencil(), 0.1, n=5)
    with pytest.raises(ValueError, match="n is 5 or more, but in dimension 4 no more than 4 directions are"):
        estimate(estimator, lambda x: x.sum(-1), torch.zeros(4, dtype=F64))
    with pytest.raises(ValueError, match="replace is 'no'"):
        Coordinate("no")


class Two(nn.Module):
    """f = x y^2 + x^3 / 3, x and y in two tensors."""

    def __init__(self, dtype=F64) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor([0.3], dtype=dtype))
        self.y = nn.Parameter(torch.tensor([-0.7], dtype=dtype))

    def forward(self) -> Tensor:
        return cubic(torch.cat((self.x, self.y)))


def cubic(points: Tensor) -> Tensor:
    x, y = points.unbind(-1)
    return x * y**2 + x**3 / 3


SEGMENTS = Layout((Segment("x", 1), Segment("y", 1)))
POINT = torch.tensor([0.3, -0.7], dtype=F64)


def mean_by_quadrature(kernel, shared: bool, e: float) -> np.ndarray:
    """E[(f(p + e r.u) - f(p - e r.u)) / (2 e) K(r).u], by Gauss-Hermite over u and the kernel's rule over r."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    weights = weights / weights.sum()
    if kernel is None:
        rule = [(1.0, np.ones(2), np.ones(2))]
    else:
        single = list(zip(*(v.tolist() for v in kernel.quadrature(4)), strict=True))
        pairs = [(a, a) for a in single] if shared else list(product(single, repeat=2))
        chance = [a[0] if shared else a[0] * b[0] for a, b in pairs]
        rule = [(p, np.array([a[1], b[1]]), np.array([a[2], b[2]])) for p, (a, b) in zip(chance, pairs, strict=True)]
    f = lambda p: p[0] * p[1] ** 2 + p[0] ** 3 / 3  # noqa: E731
    point, total = POINT.numpy(), np.zeros(2)
    for (i, u), (j, v) in product(enumerate(nodes), repeat=2):
        line = np.array([u, v])
        for p, r, k in rule:
            slope = (f(point + e * r * line) - f(point - e * r * line)) / (2 * e)
            total += weights[i] * weights[j] * p * slope * k * line
    return total


@pytest.mark.parametrize(
    ("kernel", "shared", "bias"),
    [
        (None, True, 2.0),
        (legendre(3), True, 0.0),
        (legendre(3), False, 1 / 3),
        (legendre(5), False, 1 / 3),
        (chebyshev(3), False, 1 / 3),  # E[r^2] is 1/3 here too
        (optimal(3, 0.01), False, None),
    ],
)
def test_the_cross_tensor_bias_by_quadrature(kernel, shared, bias):
    """Along x in units of e^2: E[r^2] of MeZO's cross-tensor part stays."""
    if bias is None:
        rule = kernel.quadrature(2)
        bias = float(rule.probabilities @ rule.nodes**2)
    e, (x, y) = 0.5, POINT.tolist()
    offset = (mean_by_quadrature(kernel, shared, e) - [y**2 + x**2, 2 * x * y]) / e**2
    assert offset == pytest.approx([bias, 0.0], abs=1e-11)


@pytest.mark.parametrize(
    ("estimator", "bias"),
    [
        (LineEstimator(Gaussian(), CentralStencil(), 0.5), 2.0),
        (LineEstimator(Gaussian(), KernelStencil(legendre(3)), 0.5), 0.0),
        (LineEstimator(PerTensor(legendre(3)), CentralStencil(), 0.5), 1 / 3),
        (LineEstimator(PerTensor(legendre(3), Rademacher()), CentralStencil(), 0.5), 1 / 3),
    ],
    ids=lambda v: repr(v),
)
def test_the_cross_tensor_bias_of_the_library(estimator, bias):
    space, samples = FlatSpace(POINT, layout=SEGMENTS), 400_000
    rows = space.dense(query(space, estimator, cubic, 20250518, (), (samples,)).gradient)
    offset = (rows - torch.tensor([0.7**2 + 0.3**2, -2 * 0.3 * 0.7], dtype=F64)) / 0.25
    error = offset.std(0) / samples**0.5
    wanted = torch.tensor([bias, 0.0], dtype=F64)
    assert float(((offset.mean(0) - wanted).abs() / error).max()) < 5
    others = [b for b in (2.0, 0.0, 1 / 3) if b != bias]
    for other in others:  # planted: the bias of the others
        assert abs(float(offset[:, 0].mean()) - other) / float(error[0]) > 5


def test_the_second_moment_of_one_reach_for_each_tensor():
    sizes, g = (2, 4), torch.tensor([1.0, 0.0, 0.5, -1.0, 0.0, 2.0], dtype=F64)
    space, samples = FlatSpace(torch.zeros(6, dtype=F64), layout=LAYOUTS["two"]), 400_000
    for law in (Gaussian(), Rademacher()):
        for kernel in (legendre(3), shrunk(legendre(3, 4.0), 0.5), optimal(3, 0.1)):
            per_tensor = PerTensor(kernel, law)
            estimator = LineEstimator(per_tensor, CentralStencil(), 0.1)
            rows = space.dense(query(space, estimator, lambda x: x @ g, 5, (), (samples,)).gradient)
            norms = rows.square().sum(-1)
            first, second = per_tensor.fourth_moments(sizes)
            wanted = first * float(g[:2] @ g[:2]) + second * float(g[2:] @ g[2:])
            error = float(norms.std()) / samples**0.5
            assert abs(float(norms.mean()) - wanted) < 5 * error
            assert abs(float(norms.mean()) - 1.1 * wanted) > 5 * error  # planted
            mean_error = rows.std(0) / samples**0.5
            assert float(((rows.mean(0) - per_tensor.second_moment * g).abs() / mean_error).max()) < 5
    assert PerTensor(legendre(3)).fourth_moments((6,)) == pytest.approx((6.25 * 8,))
    assert PerTensor(legendre(3)).fourth_moments((2, 4)) == pytest.approx((6.25 * 8, 6.25 * 8))  # E[r^2] E[K^2] = 25/4


def test_the_second_moment_of_a_law_by_tensor_is_the_first_of_its_kernel():
    """That E[credit u^T] is what it declares is a check of laws."""
    law = PerTensor(legendre(3, 4.0))
    assert law.second_moment == 4.0 and PerTensor(shrunk(legendre(3, 4.0), 0.5)).second_moment == pytest.approx(4.9375)


@pytest.mark.parametrize("base", [Gaussian(), Rademacher(), Sphere(), Coordinate(), Orthogonal()], ids=repr)
def test_probe_and_credit_are_the_same_direction_with_one_factor_a_segment(base):
    layout, law, kernel = LAYOUTS["two"], PerTensor(legendre(3), base), legendre(3)
    v, probe, credit = (directions(each, 8, 3, layout, (40,)) for each in (base, law, law.credit))
    for segment in (slice(0, 2), slice(2, 6)):
        hit = v[..., segment].abs() > 1e-9
        r = torch.where(hit, probe[..., segment] / v[..., segment], 0.0)
        k = torch.where(hit, credit[..., segment] / v[..., segment], 0.0)
        assert torch.allclose(r, torch.where(hit, r.abs().amax(-1, keepdim=True) * r.sign(), 0.0), atol=1e-10)
        assert torch.allclose(k, torch.where(hit, kernel(r), 0.0), atol=1e-7)
    if not isinstance(base, Coordinate):
        first, second = (probe[..., i] / v[..., i] for i in (0, 2))
        assert not torch.allclose(first, second)  # another r for the other segment
    assert law.unit(9) == law.credit.unit(9) == base.unit(9) and not law.orthogonal
    assert law.credit.credit == law.credit


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_module_steps_along_the_credit(dtype):
    module = Two(dtype).eval()
    space = ModuleSpace(module)
    start = space.vector()
    estimator = LineEstimator(PerTensor(legendre(3)), CentralStencil(), 0.1, n=2)
    told = query(space, estimator, module, 6, ())
    flat = FlatSpace(start.clone(), space.layout)
    other = query(flat, estimator, cubic, 6, ())
    assert torch.allclose(told.gradient.terms[0].coefficients, other.gradient.terms[0].coefficients, rtol=1e-4)
    assert told.gradient.terms[0].law == PerTensorCredit(legendre(3))
    space.step_(told.gradient, -0.1)
    wanted = start - 0.1 * space.dense(told.gradient)
    assert torch.allclose(space.vector(), wanted, atol=1e-12 if dtype == F64 else 1e-6)
    along = Combination((Term(PerTensor(legendre(3)), 6, told.gradient.terms[0].coefficients),))
    assert not torch.allclose(space.vector(), start - 0.1 * space.dense(along), atol=1e-3)  # planted: along the probe


def test_a_module_draws_orthogonal_directions():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval()
    space = ModuleSpace(module)
    rows = [space.dense(Combination((Term(Orthogonal(), 2, torch.eye(5, dtype=F64)[i]),))) for i in range(5)]
    gram = torch.stack(rows) @ torch.stack(rows).T
    assert torch.allclose(gram, 26 * torch.eye(5, dtype=F64), atol=1e-4)


@pytest.mark.parametrize(
    "law",
    [*LAWS.values(), PerTensor(legendre(3, 4.0)), PerTensor(rescaled(optimal(3, 1.0), 0.5), Rademacher()).credit],
    ids=repr,
)
def test_the_repr_is_the_identity(law):
    again = eval(repr(law), {**vars(zobench), **vars(kernels)})
    assert again == law and hash(again) == hash(law)


def test_what_a_law_says_of_itself():
    assert [name for name, law in LAWS.items() if law.orthogonal] == ["orthogonal", "distinct-coordinate"]
    assert [name for name, law in LAWS.items() if law.credit != law] == ["blocks"]
    assert [name for name, law in LAWS.items() if law.second_moment is None] == ["small-weights", "tied"]
    assert {law.second_moment for law in LAWS.values()} == {1.0, None}
    others = ["low-rank", "small-weights", "subspace", "blocks", "tied"]
    assert [name for name, law in LAWS.items() if not isinstance(law, Isotropic)] == others
    assert [name for name, law in LAWS.items() if law.held] == ["small-weights"]
    assert Orthogonal().fourth_moment(7) == Coordinate(replace=False).fourth_moment(7) == 7.0
    assert not isinstance(PerTensor(legendre(3)), Isotropic)
    with pytest.raises(ValueError, match="independent entries, unlike Sphere"):
        PerTensor(legendre(3), Sphere()).fourth_moments((1, 2))
    with pytest.raises(ValueError, match="kernel is 3"):
        PerTensor(3)
    with pytest.raises(ValueError, match="law is PerTensor"):
        PerTensor(legendre(3), PerTensor(legendre(3)))


@dataclass(frozen=True)
class Stretched(Law):
    """Twice as far along the first coordinate, of which it says nothing."""

    def direction(self, key, index, layout, batch):
        draw = Gaussian().direction(key, index, layout, batch)
        return lambda block: draw(block) * torch.tensor([2.0, *[1.0] * (block.size - 1)], dtype=F64)


def test_theory_wants_an_isotropic_law_and_a_controlled_mean_a_known_one():
    f = problems.make("quadratic", 4)
    x = problems.start(f)
    estimator = LineEstimator(Stretched(), CentralStencil(), 0.1)
    for predict in (theory.bias, theory.mse, theory.covariance_trace, theory.best_lr):
        with pytest.raises(
            TypeError, match=r"Stretched\(\), which is no zobench.Isotropic: .* sample it, zobench.moments"
        ):
            predict(estimator, f, x)
    with pytest.raises(TypeError, match=r"which the law Stretched\(\) does not declare .*: take `moments`"):
        zobench.controlled_moments(estimator, f, f.gradient(x), x)
    found, wanted = zobench.moments(estimator, f, x, samples=20_000), f.gradient(x).clone()
    assert float(((found.mean - wanted) / found.mean_error).abs().max()) > 5  # planted: as if it were isotropic
    wanted[0] *= 4
    assert float(((found.mean - wanted) / found.mean_error).abs().max()) < 5
