"""Models of noise: what they add to estimates of linear functions, beside wrong predictions that must fail."""

import itertools
import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from synthetic import problems
from synthetic.noise import Additive, MinibatchNoise, Multiplicative, Rounding, statistics
from zobench import FlatSpace, LineEstimator, derive, estimate, methods, moments, query, theory
from zobench.layout import CPU
from zobench.montecarlo import chunk_rows
from zobench.naming import UnknownNameError
from zobench.noise import NoisySpace, errors
from zobench.problem import MissingDerivativeError
from zobench.random import streams

pytestmark = pytest.mark.usefixtures("one_thread")

SAMPLES = 20_000
METHODS = ("mezo", "forward", "richardson", "kerzoo")
LAWS = ("gaussian", "rademacher", "coordinate")
NOISES = (
    Additive(0.3),
    Multiplicative(0.2),
    Rounding("bfloat16"),
    Rounding("float16", inputs=True),
    MinibatchNoise(4),
    MinibatchNoise(2, per="direction"),
    MinibatchNoise(3, per="evaluation"),
)


@dataclass(frozen=True, eq=False)
class LinearExamples:
    """f(x) = mean_i a_i . x + b_i: the noise of a minibatch is linear in x, so that leading orders are all."""

    features: Tensor
    offsets: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return self.example_losses(x).mean(-1)

    @property
    def dim(self) -> int:
        return self.features.shape[1]

    @property
    def examples(self) -> int:
        return len(self.offsets)

    def example_losses(self, x: Tensor) -> Tensor:
        return x @ self.features.T + self.offsets

    def gradient(self, x: Tensor) -> Tensor:
        return self.features.mean(0)

    def gradient_covariance(self, x: Tensor) -> Tensor:
        return torch.cov(self.features.T, correction=0)


def linear(dim: int, examples: int = 5, offset: float = 1.5) -> LinearExamples:
    features = streams.normal(derive("linear", dim), (examples, dim), torch.float64, CPU)
    return LinearExamples(features, offset + torch.linspace(-1, 1, examples, dtype=torch.float64))


def z_of(values: Tensor, expected: float) -> float:
    """How many standard errors the mean of independent values is from the expected."""
    return abs(float((values.mean() - expected) / (values.std() / math.sqrt(len(values)))))


def added(estimator: LineEstimator, f, x: Tensor, noise, key: int = 11) -> Tensor:
    """|g_noisy - g|^2 of paired estimates: same key, same directions, so that only the noise is left."""
    pair = [estimate(estimator, f, x, key=key, samples=SAMPLES, noise=kind) for kind in (noise, 0.0)]
    return (pair[0] - pair[1]).square().sum(-1)


def squared_weights(estimator: LineEstimator, power: int) -> float:
    """E sum_k w_k^2 r_k^power."""
    rule = estimator.stencil.quadrature(4)
    return rule.mean((rule.weights**2 * rule.nodes**power).sum(-1))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("method", METHODS)
def test_additive_noise_of_linear_functions(method, law):
    f = linear(4)
    x, n = torch.ones(4, dtype=torch.float64), 2
    estimator = methods.make(method, epsilon=0.2, law=law, n=n)
    e = 0.2 * estimator.law.unit(4)
    expected = squared_weights(estimator, 0) * 4 * 0.3**2 / (n * e**2)
    seen = added(estimator, f, x, Additive(0.3))
    assert z_of(seen, expected) < 5
    assert z_of(seen, 1.1 * expected) > 5  # planted
    assert torch.equal(seen, added(estimator, f, x, 0.3))


@pytest.mark.parametrize("law", ["gaussian", "rademacher"])
@pytest.mark.parametrize("method", METHODS)
def test_multiplicative_noise_of_linear_functions(method, law):
    """E|added|^2 = (s/e)^2 / n (d f^2 E sum w^2 + e^2 c_d |g|^2 E sum w^2 r^2)."""
    f = linear(4, offset=0.5)
    x, n, epsilon, scale = torch.ones(4, dtype=torch.float64), 2, 0.2, 0.1
    estimator = methods.make(method, epsilon=epsilon, law=law, n=n)
    value, slope = float(f(x)), float(f.gradient(x).norm())
    base = 4 * value**2 * squared_weights(estimator, 0)
    reach = epsilon**2 * estimator.law.fourth_moment(4) * slope**2 * squared_weights(estimator, 2)
    seen = added(estimator, f, x, Multiplicative(scale))
    assert z_of(seen, (scale / epsilon) ** 2 / n * (base + reach)) < 5
    assert z_of(seen, 1.1 * (scale / epsilon) ** 2 / n * (base + reach)) > 5  # planted
    assert Multiplicative(scale).deviation(f, x) == scale * abs(value)


def test_numbers_are_additive_noise_as_ever():
    """The draws are those of the keys, one for the base point of all lines: spelled out here."""
    f, x, key = linear(3), torch.ones(3, dtype=torch.float64), 5
    forward = methods.make("forward", epsilon=0.2, n=2)
    plan = forward.ask(derive(key, 0), forward.init(), (50,))
    space = FlatSpace(x)
    drawn = streams.normal(derive(plan.key, "noise"), (50, 2, 2), torch.float64, CPU)
    drawn[..., 1] = streams.normal(derive(plan.key, "base noise"), (50,), torch.float64, CPU)[:, None]
    assert torch.equal(errors(plan), drawn)
    told = forward.tell(plan, space.losses(f, plan).add_(drawn, alpha=0.3), ())
    rows = estimate(forward, f, x, key=key, samples=50, noise=0.3)
    assert torch.equal(rows, space.dense(told.gradient))
    assert torch.equal(rows, estimate(forward, f, x, key=key, samples=50, noise=Additive(0.3)))
    assert torch.equal(estimate(forward, f, x, samples=50), estimate(forward, f, x, samples=50, noise=Additive(0.0)))


PLACES = (0.0, 0.1, 0.25, 0.4)


def rounded_pairs(place: float) -> tuple[Tensor, float]:
    """What rounding to float16 adds to central differences of a linear function whose value at x is `place` ulps above
    a representable number, and what independent errors would add.
    """
    dim, epsilon, ulp = 8, 0.03, 2.0**-10
    direction = torch.ones(dim, dtype=torch.float64) / math.sqrt(dim)
    estimator, noise = methods.make("mezo", epsilon=epsilon), Rounding("float16")
    x = torch.zeros(dim, dtype=torch.float64)

    def f(points: Tensor) -> Tensor:
        return 1.5 + place * ulp + points @ direction

    assert noise.deviation(f, x) == pytest.approx(ulp / math.sqrt(12), rel=1e-14)
    return added(estimator, f, x, noise), dim * noise.deviation(f, x) ** 2 / (2 * epsilon**2)


@pytest.mark.parametrize("place", PLACES)
def test_rounding_errors_of_central_differences_mirror_each_other(place):
    seen, independent = rounded_pairs(place)
    y = 2 * place
    factor = 6 * (1 / 6 + y**2 - y + 1 / 6)
    assert z_of(seen, factor * independent) < 5
    assert z_of(seen, 1.1 * factor * independent) > 5  # planted
    assert 0.5 - 1e-12 <= factor <= 2
    if place in (0.0, 0.25):
        assert z_of(seen, independent) > 5  # planted: independent errors


def test_rounding_errors_are_as_if_independent_over_all_places():
    """The mean of y^2 - y + 1/6 over y is 0: over 16 places, by the midpoint rule, its error is 1/12 of 1/256 ulp^2."""
    pairs = [rounded_pairs((k + 0.5) / 16) for k in range(16)]
    seen = torch.stack([pair[0] for pair in pairs]).mean(0)
    assert z_of(seen, pairs[0][1]) < 5
    assert z_of(seen, 1.05 * pairs[0][1]) > 5  # planted


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_ulps_are_the_spacing_of_the_dtype(dtype):
    noise = Rounding(dtype)
    kind = getattr(torch, dtype)
    values = torch.tensor([1.0, 1.99, 2.0, -3.7, 1e-3, 40000.0], dtype=torch.float64).to(kind).double()
    above = values.abs() + noise.ulp(values)
    assert torch.equal(noise(above), above), "one ulp further is representable"
    half = values.abs() + 0.5 * noise.ulp(values)
    assert bool((noise(half) != half).all()), "half an ulp further is not"
    assert bool(
        noise.ulp(torch.tensor([0.0], dtype=torch.float64)) == torch.finfo(kind).smallest_normal * torch.finfo(kind).eps
    )
    assert bool(noise.ulp(torch.tensor([1e300], dtype=torch.float64)).isinf())


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_deviation_is_that_of_one_evaluation(noise):
    """Evaluations at points so near that f hardly changes, and so far apart that they differ by many ulps."""
    f = problems.make("logistic", 6, examples=16)
    x = problems.start(f) * 3
    spread = 1e-9
    if isinstance(noise, Rounding):
        spread = 20 * float(noise.ulp(x if noise.inputs else f(x)).max())
    dense = spread * streams.normal(7, (SAMPLES, 6), torch.float64, CPU)
    stencil = methods.make("forward", law="rademacher", epsilon=1.0)  # the plan whose base point is each point in turn
    plan = stencil.ask(3, (), (SAMPLES,))
    seen = NoisySpace(x + dense, noise).losses(f, plan)[:, 0, 1] - f(x + dense)
    expected = noise.deviation(f, x) ** 2
    assert z_of(seen.square(), expected) < 5
    assert z_of(seen.square(), 1.25 * expected) > 5  # planted


def atoms(f: LinearExamples, size: int) -> dict[tuple[float, ...], float]:
    """Every estimate (g_B . u) u, u = ±1 in each entry, with its probability: minibatches drawn with replacement."""
    chances: dict[tuple[float, ...], float] = {}
    signs = list(itertools.product((-1.0, 1.0), repeat=f.dim))
    batches = list(itertools.product(range(f.examples), repeat=size))
    for u, batch in itertools.product(torch.tensor(signs).double(), batches):
        estimated = (f.features[list(batch)].mean(0) @ u) * u
        name = tuple(round(v, 9) for v in estimated.tolist())
        chances[name] = chances.get(name, 0.0) + 1 / (len(signs) * len(batches))
    return chances


@pytest.mark.parametrize("per", ["plan", "direction"])
def test_minibatch_noise_by_enumeration(per):
    """q c_d (|g|^2 + tr(Sigma) / B), summed over all 8 directions and 16 minibatches; every estimate drawn is among
    them, as often as it should.
    """
    f, x = linear(3, examples=4), torch.ones(3, dtype=torch.float64)
    estimator = methods.make("mezo", law="rademacher", epsilon=0.5)
    chances = atoms(f, 2)
    second = sum(p * sum(v * v for v in name) for name, p in chances.items())
    gradient, covariance = f.gradient(x), f.gradient_covariance(x) / 2
    assert second == pytest.approx(3 * float(gradient @ gradient + covariance.trace()), rel=1e-8)
    assert second != pytest.approx(3 * float(gradient @ gradient + covariance.trace() * 4 / 3), rel=1e-3)  # planted
    mean = [sum(p * name[i] for name, p in chances.items()) for i in range(3)]
    assert mean == pytest.approx(gradient.tolist(), abs=1e-8)
    rows = estimate(estimator, f, x, samples=SAMPLES, noise=MinibatchNoise(2, per=per))
    drawn = [tuple(round(v, 9) + 0.0 for v in row) for row in rows.tolist()]
    counts = {name: 0 for name in chances}
    for name in drawn:
        counts[name] += 1  # a KeyError: an estimate that no minibatch makes
    z = [(counts[name] - SAMPLES * p) / math.sqrt(SAMPLES * p * (1 - p)) for name, p in chances.items()]
    assert max(map(abs, z)) < 5
    once = {name: p for name, p in atoms(f, 1).items()}
    assert set(once) < set(chances) and sum(counts[name] for name in once) < 0.5 * SAMPLES  # planted: one example


def of_linear(estimator: LineEstimator, f: LinearExamples, noise: MinibatchNoise) -> float:
    """E|g|^2 on a linear function: q c_d G / n + (1 - 1/n) M, G = |g|^2 + tr(Sigma) / B, M = G if the minibatch is
    shared, else |g|^2.
    """
    zero, n = torch.zeros(f.dim, dtype=torch.float64), estimator.n
    plain = float(f.gradient(zero).square().sum())
    noisy = plain + float(f.gradient_covariance(zero).trace()) / noise.size
    between = noisy if noise.per == "plan" else plain
    q = estimator.stencil.slope_second_moment()
    return q * estimator.law.fourth_moment(f.dim) * noisy / n + (1 - 1 / n) * between


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("law", "n"), [("gaussian", 3), ("rademacher", 2)])
def test_minibatches_of_a_plan_and_of_each_direction(method, law, n):
    f, x = linear(3), torch.ones(3, dtype=torch.float64)
    estimator = methods.make(method, law=law, epsilon=0.3, n=n)
    kinds = {per: MinibatchNoise(2, per=per) for per in ("plan", "direction")}
    for per, other in (("plan", "direction"), ("direction", "plan")):
        squares = estimate(estimator, f, x, samples=SAMPLES, noise=kinds[per]).square().sum(-1)
        assert z_of(squares, of_linear(estimator, f, kinds[per])) < 5
        if law == "rademacher" and method != "kerzoo":
            assert z_of(squares, of_linear(estimator, f, kinds[other])) > 5  # planted
        assert z_of(squares, of_linear(estimator, f, MinibatchNoise(3, per=per))) > 5  # planted
        known = statistics(kinds[per], f, x)
        assert known.shared == (per == "plan") and torch.equal(known.minibatch, f.gradient_covariance(x) / 2)


@pytest.mark.parametrize("method", ["mezo", "forward", "richardson"])
def test_a_minibatch_for_each_evaluation(method):
    """The variance over minibatches at each node is divided by epsilon^2, summed over all 8 directions."""
    f, x, epsilon, size = linear(3), torch.ones(3, dtype=torch.float64), 0.3, 2
    estimator = methods.make(method, law="rademacher", epsilon=epsilon)
    nodes, weights = estimator.stencil.draw(0, ())
    u = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=3)), dtype=torch.float64)
    losses = f.example_losses(x + epsilon * nodes[:, None, None] * u)
    spread = (weights[:, None] ** 2 * losses.var(-1, correction=0)).sum(0).mean() / (size * epsilon**2)
    expected = 3 * float(spread + (u @ f.gradient(x)).square().mean())
    noise = MinibatchNoise(size, per="evaluation")
    squares = estimate(estimator, f, x, samples=SAMPLES, noise=noise).square().sum(-1)
    assert z_of(squares, expected) < 5
    assert z_of(squares, of_linear(estimator, f, noise)) > 5  # planted: as if shared
    assert statistics(noise, f, x).evaluation == pytest.approx(float(f.example_losses(x).std(correction=0)) / 2**0.5)


@pytest.mark.parametrize("per", ["plan", "direction"])
def test_minibatch_noise_of_logistic_regression(per):
    f = problems.make("logistic", 5, examples=32)
    x = problems.start(f)
    estimator, noise = methods.make("mezo", law="rademacher", epsilon=1e-4, n=4), MinibatchNoise(2, per=per)
    known = statistics(noise, f, x)
    found = moments(estimator, f, x, samples=SAMPLES, noise=noise)
    predicted = theory.covariance_trace(estimator, f, x, known)
    assert abs(found.covariance_trace - predicted) < 5 * found.covariance_trace_error
    other = theory.covariance_trace(estimator, f, x, replace(known, shared=not known.shared))
    assert abs(found.covariance_trace - other) > 5 * found.covariance_trace_error  # planted
    assert bool(((found.mean - f.gradient(x)) / found.mean_error).abs().max() < 5)


@pytest.mark.parametrize("noise", NOISES, ids=repr)
@pytest.mark.parametrize("method", ["forward", "kerzoo"])
def test_rows_depend_on_neither_the_total_nor_the_threads(noise, method):
    f = problems.make("logistic", 300, examples=8)
    x, size = problems.start(f), chunk_rows(300)
    estimator = methods.make(method, epsilon=0.1, n=2)
    rows = estimate(estimator, f, x, key=3, samples=2 * size + 5, noise=noise)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(estimate(estimator, f, x, key=3, samples=2 * size + 5, noise=noise), rows)
    finally:
        torch.set_num_threads(threads)
    flipped = 0.01 if isinstance(noise, Rounding) else 0.0  # sums that end a bit apart may round to neighbours
    for samples in (1, size - 1, size + 1):
        fewer = estimate(estimator, f, x, key=3, samples=samples, noise=noise)
        apart = (fewer - rows[:samples]).abs().amax(-1) > 1e-10 * float(rows.abs().max())
        assert float(apart.double().mean()) <= flipped
    plain = estimate(estimator, f, x, key=3, samples=size + 1)
    assert not torch.isclose(plain, rows[: size + 1]).all(-1).any()
    if not isinstance(noise, Rounding):
        other = estimate(estimator, f, x, key=4, samples=size, noise=noise)
        assert not torch.isclose(other, rows[:size]).all(-1).any()


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_noise_in_optimisation(noise):
    """A step of one point, and a batch of points that share a key."""
    f = problems.make("logistic", 3, examples=8)
    estimator = methods.make("forward", epsilon=0.1, n=2)
    for batch in ((), (5,)):
        x = problems.start(f).expand(*batch, 3).clone()
        space = NoisySpace(x, noise)
        told = query(space, estimator, f, 4, (), batch)
        again = query(NoisySpace(x, noise), estimator, f, 4, (), batch)
        assert told.losses.shape == (*batch, 2, 2)
        assert torch.equal(told.losses, again.losses)
        exact = FlatSpace(x).losses(f, estimator.ask(4, (), batch))
        assert not torch.isclose(exact, told.losses).all()


@pytest.mark.parametrize("noise", NOISES, ids=repr)
def test_reprs_are_identities(noise):
    assert eval(repr(noise)) == noise
    assert statistics(noise, problems.make("logistic", 3), torch.ones(3, dtype=torch.float64)) is not None


def test_rounding_is_a_function():
    noise = Rounding("bfloat16", inputs=True)
    seen = noise.rounded(lambda p: p.sum(-1))
    points = torch.tensor([[1.001, 1.0], [1.0, 1.0]], dtype=torch.float64)
    assert seen(points).tolist() == [2.0, 2.0]
    assert Rounding("float32").rounded(lambda p: p.sum(-1))(points)[0] == pytest.approx(2.001, abs=1e-7)


class TestErrors:
    x = torch.ones(3, dtype=torch.float64)

    @pytest.mark.parametrize("scale", [-1.0, math.inf, math.nan, "0.1", None])
    def test_a_scale_that_is_none(self, scale):
        for draw in (estimate, moments):
            with pytest.raises(ValueError, match=f"noise is {scale!r}: give a standard deviation"):
                draw(methods.make("mezo"), linear(3), self.x, noise=scale)

    @pytest.mark.parametrize("scale", [-1.0, math.inf])
    def test_a_relative_scale_that_is_none(self, scale):
        with pytest.raises(ValueError, match=f"scale is {scale!r}"):
            Multiplicative(scale)

    def test_unknown_names(self):
        with pytest.raises(UnknownNameError, match="Did you mean 'bfloat16'"):
            Rounding("bfloat")
        with pytest.raises(UnknownNameError, match="Did you mean 'direction'"):
            MinibatchNoise(3, per="directions")

    @pytest.mark.parametrize("size", [0, -1, 1.5, True])
    def test_a_minibatch_of_nothing(self, size):
        with pytest.raises(ValueError, match=f"size is {size!r}"):
            MinibatchNoise(size)

    def test_a_function_without_examples(self):
        f = problems.make("quartic", 3)
        for ask in (
            lambda: estimate(methods.make("mezo"), f, self.x, noise=MinibatchNoise(3)),
            lambda: statistics(MinibatchNoise(3), f, self.x),
        ):
            with pytest.raises(
                MissingDerivativeError, match=r"minibatch noise needs \.(example_losses|gradient_covariance)"
            ):
                ask()
