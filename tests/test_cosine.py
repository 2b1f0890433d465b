"""The cosine of one estimate with the gradient: streamed, as of the estimates themselves, and as theory predicts."""

import math

import pytest
import torch

from zobench import estimate, methods, moments, theory
from zobench.testing import examples

pytestmark = pytest.mark.usefixtures("one_thread")

LINE = examples.linear(6)
SAMPLES = 20_000
MADE = {
    "gaussian": methods.make("mezo", epsilon=0.1, n=4),
    "forward": methods.make("forward", epsilon=0.1, n=2),
    "signs": methods.make("mezo", epsilon=0.1, law="rademacher"),
    "kernel": methods.make("kerzoo", epsilon=0.1),
    "orthogonal": methods.make("mezo", epsilon=0.1, law="orthogonal", n=4),
    "coordinates": methods.make("mezo", epsilon=0.1, law="distinct-coordinate", n=4),
}


@pytest.mark.parametrize("name", MADE)
def test_the_cosine_is_the_predicted_one(name):
    one, n = MADE[name], MADE[name].n
    found = moments(one, LINE.f, LINE.x, 1, SAMPLES, gradient=LINE.gradient).cosine
    error = found.root_mean_square_error
    assert abs(found.root_mean_square - theory.cosine(one, 6)) < 5 * error
    assert abs(found.root_mean_square - math.sqrt(n / (n + 7))) > 5 * error  # planted: the alignment
    assert found.mean < found.root_mean_square


@pytest.mark.parametrize("samples", [3, 20_000])
def test_the_streamed_cosine_is_that_of_the_estimates(samples):
    one, gradient = MADE["gaussian"], LINE.gradient
    rows = estimate(one, LINE.f, LINE.x, 2, samples)
    cosines = torch.nn.functional.cosine_similarity(rows, gradient[None])
    found = moments(one, LINE.f, LINE.x, 2, samples, gradient=gradient).cosine
    size = float(cosines.square().mean()) ** 0.5
    errors = [float(values.std()) / samples**0.5 for values in (cosines, cosines.square())]
    wanted = (float(cosines.mean()), errors[0], size, errors[1] / (2 * size))
    assert found == pytest.approx(wanted, rel=1e-9)
    assert moments(one, LINE.f, LINE.x, 2, samples).cosine is None


def test_an_estimate_of_length_0_has_the_cosine_0():
    still = moments(MADE["gaussian"], lambda x: torch.ones_like(x[..., 0]), LINE.x, samples=9, gradient=LINE.gradient)
    assert still.cosine == (0.0, 0.0, 0.0, 0.0)


def test_what_has_no_closed_form_is_not_predicted():
    for made in (methods.make("kerzoo", n=2), methods.make("mezo", law="sphere", n=2), methods.make("one-point")):
        assert theory.cosine(made, 6) is None
