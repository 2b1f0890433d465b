"""The mean cosine of an estimate with the gradient, against sampled directions and a planted error."""

import math

import pytest
import torch

from llm.studies import noise
from synthetic import problems
from zobench import CentralStencil, Gaussian, LineEstimator, Sphere, estimate, theory

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLES = 40_000


@pytest.mark.parametrize("law", [Gaussian(), Sphere()], ids=repr)
@pytest.mark.parametrize("dim", [2, 5, 30])
def test_the_mean_cosine_of_one_direction(law, dim):
    gradient = torch.linspace(0.5, 1.5, dim, dtype=torch.float64)
    x = torch.zeros(dim, dtype=torch.float64)
    g = estimate(LineEstimator(law, CentralStencil(), 0.5), lambda y: y @ gradient, x, key=9, samples=SAMPLES)
    cosines = g @ gradient / g.norm(dim=-1) / gradient.norm()
    error = float(cosines.std()) / math.sqrt(SAMPLES)
    told = theory.mean_cosine(dim)
    assert abs(float(cosines.mean()) - told) < 5 * error
    assert abs(float(cosines.mean()) - 1 / math.sqrt(dim)) > 5 * error  # the root mean square is another number


@pytest.mark.parametrize(("n", "dim"), [(2, 3), (4, 12), (30, 5)])
def test_the_cosines_of_several_gaussian_directions(n, dim):
    """Mean, root mean square, and the ratio of means that is another number."""
    gradient = torch.linspace(0.5, 1.5, dim, dtype=torch.float64)
    estimator, x = LineEstimator(Gaussian(), CentralStencil(), 0.5, n), torch.zeros(dim, dtype=torch.float64)
    g = estimate(estimator, lambda y: y @ gradient, x, key=3, samples=SAMPLES // 4)
    cosines, count = g @ gradient / g.norm(dim=-1) / gradient.norm(), math.sqrt(SAMPLES // 4)
    told, square = theory.mean_cosine(dim, n), theory.cosine(estimator, dim)
    error = float(cosines.std()) / count
    assert abs(float(cosines.mean()) - told) < 5 * error
    assert abs(float(cosines.square().mean()) - square**2) < 5 * float(cosines.square().std()) / count
    assert abs(float(cosines.mean()) - theory.mean_cosine(dim)) > 5 * error  # planted: that of one direction
    line = problems.make("quadratic", dim=dim)  # its second moment at any point is that of a linear function
    point = problems.start(line)
    slope = float(line.gradient(point).square().sum())
    ratio = slope / math.sqrt(theory.second_moment(estimator, line, point) * slope)
    assert ratio == pytest.approx(math.sqrt(n / (n + dim + 1)), rel=1e-12) and ratio < square


def test_noise_tells_both_in_words():
    said = noise.expected_cosines(125_000_000)
    assert "125,000,000 weights" in said and "7.1e-05 (root mean square 8.9e-05) along 1" in said
    assert "0.0028 (root mean square 0.0028) along 1,000" in said


def test_in_many_dimensions_it_is_nearly_sqrt_2_over_pi_d():
    assert theory.mean_cosine(10**6) == pytest.approx(math.sqrt(2 / (math.pi * 10**6)), rel=1e-6)
    assert theory.mean_cosine(1) == pytest.approx(1)
    assert theory.mean_cosine(1, 3) == 1.0
    with pytest.raises(ValueError, match="dim is 0"):
        theory.mean_cosine(0)
    with pytest.raises(ValueError, match="n is 0"):
        theory.mean_cosine(3, 0)
