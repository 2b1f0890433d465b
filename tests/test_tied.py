"""Noise that is tied between tensors of one shape, and uniform entries: what their moments are."""

import math

import pytest
import torch
from torch import Tensor

from zobench import (
    CentralStencil,
    FlatSpace,
    Gaussian,
    LineEstimator,
    Rademacher,
    Sphere,
    Tied,
    Uniform,
    estimate,
    methods,
    query,
)
from zobench.layout import Layout

pytestmark = pytest.mark.usefixtures("one_thread")

F64 = torch.float64
SHAPES = {"q": (2, 2), "k": (2, 2), "v": (4, 1), "b": (3,)}
D = 15
SLOPE = torch.linspace(-1, 2, D, dtype=F64)
N = 40_000


def linear(x: Tensor) -> Tensor:
    return x @ SLOPE


def rows_of(law, shapes=SHAPES) -> Tensor:
    estimator = LineEstimator(law, CentralStencil(), 0.1)
    return estimate(estimator, linear, torch.zeros(D, dtype=F64), key=2, samples=N, layout=shapes)


def mean_z(rows: Tensor, wanted: Tensor) -> float:
    return float(((rows.mean(0) - wanted).abs() / (rows.std(0) / len(rows) ** 0.5 + 1e-12)).max())


def second_z(rows: Tensor, wanted: float) -> float:
    squares = rows.square().sum(-1)
    return abs(float((squares.mean() - wanted) / squares.std()) * math.sqrt(len(squares)))


def summed() -> dict[tuple[int, ...], Tensor]:
    """The gradients of the tensors of each shape, summed."""
    q, k, v, b = SLOPE.split([4, 4, 4, 3])
    return {(2, 2): q + k, (4, 1): v, (3,): b}


@pytest.mark.parametrize("law", [Tied(), Tied(Rademacher())], ids=repr)
def test_the_mean_of_a_tied_estimate_is_the_sum_over_a_shape(law):
    rows, sums = rows_of(law), summed()
    wanted = torch.cat([sums[shape] for shape in SHAPES.values()])
    assert mean_z(rows, wanted) < 5 < mean_z(rows, SLOPE)  # planted: as if the noise were independent
    c = law.fourth_moments(SHAPES.values())
    assert c == pytest.approx({(2, 2): D + 4, (4, 1): D + 2, (3,): D + 2} if law == Tied() else dict.fromkeys(sums, D))
    square = sum(c[shape] * float(total.square().sum()) for shape, total in sums.items())
    assert second_z(rows, square) < 5 < second_z(rows, 1.1 * square)
    assert law.second_moment is None and law.effective_dimension(SHAPES.values()) == 11


def test_without_two_tensors_of_a_shape_nothing_is_tied():
    shapes = {"q": (2, 4), "b": (7,)}
    assert Tied().effective_dimension(shapes.values()) == D
    assert mean_z(rows_of(Tied(), shapes), SLOPE) < 5


def test_how_little_is_left_of_a_transformer():
    """OPT-125m: 12 layers, 768 wide. Of its layers 6 % of the entries are distinct, with embeddings 36 %."""
    layer = [*[(768, 768)] * 4, *[(768,)] * 9, (3072, 768), (3072,), (768, 3072)]
    layers = [*layer * 12, (768,), (768,)]
    whole = [*layers, (50272, 768), (2050, 768)]
    assert [sum(map(math.prod, shapes)) for shapes in (layers, whole)] == [85_056_000, 125_239_296]
    assert [Tied().effective_dimension(shapes) for shapes in (layers, whole)] == [5_312_256, 45_495_552]


def loss_after(law: str, steps: int = 400) -> tuple[float, Tensor]:
    """The loss |x - a|^2 / 2 after steps of the best constant rate, and x; 20 tensors of one shape, 100 entries."""
    shapes, target = [(5,)] * 20, torch.linspace(-1, 1, 100, dtype=F64)
    space = FlatSpace(torch.zeros(100, dtype=F64), Layout.of(shapes))
    estimator, f = methods.make("mezo", law=law), lambda x: (x - target).square().sum(-1) / 2
    rate = 1 / 102 if law == "gaussian" else 1 / 140  # 1 / c of the second moment
    for key in range(steps):
        space.step_(query(space, estimator, f, key, ()).gradient, -rate)
    return float(f(space.x)), space.x


def test_tied_noise_never_changes_the_difference_of_tied_tensors():
    """What is left of the loss is the part in which tensors of one shape differ: no number of steps removes it."""
    target = torch.linspace(-1, 1, 100, dtype=F64).view(20, 5)
    floor = float((target - target.mean(0)).square().sum()) / 2
    tied, x = loss_after("tied")
    free, _ = loss_after("gaussian")
    assert torch.allclose(x.view(20, 5), x.view(20, 5)[:1].expand(20, 5), atol=1e-12)
    assert tied == pytest.approx(floor, rel=1e-3) and free < 0.05 * floor


def test_the_moments_of_uniform_entries():
    rows, square = rows_of(Uniform()), float(SLOPE @ SLOPE)
    assert Uniform().fourth_moment(D) == pytest.approx(D - 1 + 9 / 5)
    assert mean_z(rows, SLOPE) < 5 < mean_z(rows, 1.1 * SLOPE)
    assert second_z(rows, (D + 0.8) * square) < 5 < second_z(rows, Gaussian().fourth_moment(D) * square)
    (block,) = Layout.of([100_000]).blocks
    u = Uniform().direction(1, 0, Layout.of([100_000]), ())(block)
    assert float(u.abs().max()) <= 3**0.5 and float((u**4).mean()) == pytest.approx(1.8, abs=5 * 0.0068)
    ranks = u.sort().values / 3**0.5  # Kolmogorov and Smirnov: 2.2 / sqrt(n) at one in 10,000
    assert float((ranks - torch.linspace(-1, 1, 100_000, dtype=F64)).abs().max()) / 2 < 2.2 / 100_000**0.5


def test_what_cannot_be_is_named():
    with pytest.raises(ValueError, match=r"law is Sphere\(\): give Gaussian\(\) or Rademacher\(\)"):
        Tied(Sphere())
    with pytest.raises(ValueError, match="the law Tied draws by the shapes of tensors, but x is one vector"):
        query(FlatSpace(torch.zeros(3, dtype=F64)), methods.make("mezo", law="tied"), linear, 1, ())
