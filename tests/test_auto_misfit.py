"""Losses that the model of the line does not fit: what epsilon is chosen then, and that it is told."""

import warnings

import pytest
import torch

from synthetic import problems
from zobench import AutoEpsilon, Coordinate, FlatSpace, Orthogonal, PerTensor, Sphere, kernels, methods
from zobench import query as step

pytestmark = pytest.mark.usefixtures("one_thread")


def chosen(f, x, key, **options) -> float:
    estimator = AutoEpsilon(**options)
    return step(FlatSpace(x), estimator, f, key, estimator.init()).state.choice.epsilon


def excess(f, gradient, x, epsilon) -> float:
    """The mean of (coefficient - D_1)^2 over 2,000 lines."""
    u = torch.randn(2000, len(x), dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    coefficients = (f(x + epsilon * u) - f(x - epsilon * u)) / (2 * epsilon)
    return float((coefficients - u @ gradient).square().mean())


IN_A_PLANE = pytest.mark.xfail(strict=True, reason="in a plane the choice is often too large: 13 of 24 times")


@pytest.mark.parametrize("dim", [pytest.param(2, marks=IN_A_PLANE), 20])
def test_a_plateau_of_rounded_inputs_is_not_taken(dim):
    """Inputs are rounded to 0.01: below, nothing changes; 30 times smaller than the choice, jumps are all there is."""
    smooth = problems.make("sextic", dim=dim)
    x = problems.start(smooth)
    rounded = lambda x: smooth((x / 0.01).round() * 0.01)  # noqa: E731
    least = min(excess(rounded, smooth.gradient(x), x, 10 ** (k / 6)) for k in range(-18, 6))
    told = []
    for key in range(3):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            epsilon = chosen(rounded, x, key)
        told += [str(one.message) for one in seen]
        assert excess(rounded, smooth.gradient(x), x, epsilon) < 6 * least
        assert excess(rounded, smooth.gradient(x), x, epsilon / 30) > 6 * least
        chosen(smooth, x, key)  # the twin, of which nothing is told
    assert told and all("losses change by jumps or not at all (are inputs or weights rounded?)" in one for one in told)


@pytest.mark.parametrize("width", [1e-6, 1e-5, 1e-4])
@pytest.mark.parametrize("tail", ["gaussian", "lorentz"])
def test_a_well_narrower_than_the_start_is_found(width, tail):
    def well(x):
        square = ((x / width + 0.3) ** 2).sum(-1)
        return -(-square / 2).exp() if tail == "gaussian" else -1 / (1 + square)

    for key in range(3):
        with pytest.warns(RuntimeWarning, match=r"from .* on their differences vanish \(a narrow peak or well\?\)"):
            epsilon = chosen(well, torch.zeros(8, dtype=torch.float64), key)
        assert epsilon <= 10 * width


@pytest.mark.parametrize("law", ["orthogonal", "distinct-coordinate"])
@pytest.mark.parametrize("dim", [1, 2, 4, 6])
def test_a_probe_has_more_lines_than_dimensions(law, dim):
    f = problems.make("quartic", dim=dim)
    estimator = methods.make("mezo", law=law, epsilon="auto")
    told = step(FlatSpace(problems.start(f)), estimator, f, 0, estimator.init())
    assert 1e-7 < told.state.choice.epsilon < 1e-3
    with pytest.raises(ValueError, match=f"n is {dim + 1} or more, but in dimension {dim}"):
        many = methods.make("mezo", law=law, n=dim + 1, epsilon="auto")
        step(FlatSpace(problems.start(f)), many, f, 0, many.init())


def test_laws_know_their_independent_twins():
    assert Orthogonal().independent == Sphere() and Coordinate(replace=False).independent == Coordinate()
    assert Sphere().independent == Sphere() and not Orthogonal().independent.orthogonal
    kernel = kernels.legendre(3)
    assert PerTensor(kernel, Orthogonal()).independent == PerTensor(kernel, Sphere())
