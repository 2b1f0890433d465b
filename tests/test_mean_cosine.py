"""The mean cosine of an estimate with the gradient, against sampled directions and a planted error."""

import math

import pytest
import torch

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


def test_in_many_dimensions_it_is_nearly_sqrt_2_over_pi_d():
    assert theory.mean_cosine(10**6) == pytest.approx(math.sqrt(2 / (math.pi * 10**6)), rel=1e-6)
    assert theory.mean_cosine(1) == pytest.approx(1)
    with pytest.raises(ValueError, match="dim is 0"):
        theory.mean_cosine(0)
