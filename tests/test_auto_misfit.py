"""Losses that the model of the line does not fit: what epsilon is chosen then, and that it is told."""

import warnings

import pytest
import torch
from torch import nn

from synthetic import problems
from zobench import (
    AutoEpsilon,
    Coordinate,
    FlatSpace,
    ModuleSpace,
    Orthogonal,
    PerTensor,
    Sphere,
    auto,
    kernels,
    methods,
)
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


@pytest.mark.parametrize(("dim", "keys"), [(2, 24), (3, 12), (20, 6)])
def test_a_plateau_of_rounded_inputs_is_not_taken(dim, keys, monkeypatch):
    """Inputs are rounded to 0.01: below, nothing changes; 30 times smaller than the choice, jumps are all there is. The
    twin does not see that losses stand still.
    """
    smooth = problems.make("sextic", dim=dim)
    x = problems.start(smooth)
    rounded = lambda x: smooth((x / 0.01).round() * 0.01)  # noqa: E731
    error = lambda epsilon: excess(rounded, smooth.gradient(x), x, epsilon)  # noqa: E731
    least = min(error(10 ** (k / 6)) for k in range(-18, 6))
    told = []
    for key in range(keys):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            epsilon = chosen(rounded, x, key)
        told += [str(one.message) for one in seen]
        assert error(epsilon) < 10 * least < error(epsilon / 30)
    chosen(smooth, x, 0)  # of which nothing is told
    assert len(told) > keys / 2
    assert all("losses change by jumps or not at all (are inputs or weights rounded?)" in one for one in told)
    monkeypatch.setattr(auto, "_plateau", lambda *_: 0.0)
    if dim == 2:  # beyond, some line moves at each of the reaches, and the model alone suffices
        assert max(error(chosen(rounded, x, key)) for key in range(4)) > 10 * least


def well(width, tail):
    def f(x):
        square = ((x / width + 0.3) ** 2).sum(-1)
        return -(-square / 2).exp() if tail == "gaussian" else -1 / (1 + square)

    return f


@pytest.mark.parametrize("dim", [1, 2, 8])
@pytest.mark.parametrize("width", [1e-6, 1e-5, 1e-4])
@pytest.mark.parametrize("tail", ["gaussian", "lorentz"])
def test_a_well_narrower_than_the_start_is_found(tail, width, dim):
    for key in range(3):
        with pytest.warns(RuntimeWarning, match=r"from .* on their differences vanish \(a narrow peak or well\?\)"):
            epsilon = chosen(well(width, tail), torch.zeros(dim, dtype=torch.float64), key)
        assert epsilon <= width


@pytest.mark.filterwarnings("ignore:losses along lines are no smooth function")
def test_a_well_is_no_noise(monkeypatch):
    """The twin, which does not bound the noise by differences that have faded, takes reaches beyond the well."""
    x = torch.zeros(2, dtype=torch.float64)
    monkeypatch.setattr(auto, "CHANCE", 1e9)
    assert max(chosen(well(1e-4, "lorentz"), x, key) for key in range(3)) > 5e-4


def test_what_lines_do_not_meet_changes_nothing():
    """Neither a cubic along a coordinate that no line moves, nor a well much narrower than the smallest reach."""
    x = torch.ones(6, dtype=torch.float64)
    bowl = lambda x: (x**2).sum(-1)  # noqa: E731
    cubic = lambda x: bowl(x) + x[..., 0] ** 3  # noqa: E731
    missed = [
        key for key in range(8) if chosen(bowl, x, key, law=Coordinate()) == chosen(cubic, x, key, law=Coordinate())
    ]
    assert missed and all(chosen(cubic, x, key, law=Coordinate()) > 0.01 for key in missed)
    assert all(chosen(cubic, x, key, law=Coordinate(), lines=40) < 1e-4 for key in missed)
    smooth = problems.make("sextic", dim=2)
    narrow = lambda x: smooth(x) - 1e-3 * (-((x - start) / 1e-9).square().sum(-1)).exp()  # noqa: E731
    start = problems.start(smooth)
    assert chosen(narrow, start, 0) == chosen(smooth, start, 0)


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


@pytest.mark.parametrize("law", ["orthogonal", "distinct-coordinate"])
@pytest.mark.parametrize("method", ["mezo", "kerzoo"])
def test_a_probe_of_a_module_has_more_lines_than_entries(method, law):
    layer = nn.Linear(3, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(layer.weight)
    estimator = methods.make(method, law=law, n=3, epsilon="auto")
    told = step(ModuleSpace(layer), estimator, lambda: layer.weight.pow(4).sum(), 0, estimator.init())
    assert 1e-7 < told.state.choice.epsilon < 1e-3 and told.state.choice.evaluations % 10 == 0


def test_laws_know_their_independent_twins():
    assert Orthogonal().independent == Sphere() and Coordinate(replace=False).independent == Coordinate()
    assert Sphere().independent == Sphere() and not Orthogonal().independent.orthogonal
    kernel = kernels.legendre(3)
    assert PerTensor(kernel, Orthogonal()).independent == PerTensor(kernel, Sphere())
