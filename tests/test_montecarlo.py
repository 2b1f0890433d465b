"""Monte Carlo: moments against theory by z-scores, each with a planted-error twin, and what the rows depend on."""

import math
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from engines import ISOTROPIC
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from synthetic import problems
from zobench import (
    Estimate,
    FlatSpace,
    LineEstimator,
    Rademacher,
    controlled_moments,
    estimate,
    methods,
    moments,
    query,
    theory,
)
from zobench.montecarlo import CHUNK_ENTRIES, CHUNK_ROWS, chunk_rows

pytestmark = pytest.mark.usefixtures("one_thread")  # the tests of threads set their own number

DIM = 8
SAMPLES = 20_000
METHODS = ("mezo", "forward", "richardson", "kerzoo")
EPSILON = {"rademacher": 0.01}  # where its variance is not known to all orders


def estimator_of(method: str, law: str, **options) -> LineEstimator:
    options = {"epsilon": EPSILON.get(law, 0.2), **options}
    return methods.make(method, law=law, **options)


def worst_z(estimator, theory_of, f, x, noise=0.0, key=2505_18886, theory_noise=None) -> tuple[float, float]:
    """Largest |z| of the mean, and |z| of the covariance trace, against the theory of `theory_of`."""
    sampled = moments(estimator, f, x, key=key, samples=SAMPLES, noise=noise)
    expected = f.gradient(x) + theory.bias(theory_of, f, x)
    trace = theory.covariance_trace(theory_of, f, x, noise if theory_noise is None else theory_noise)
    mean_z = float(((sampled.mean - expected) / sampled.mean_error).abs().max())
    return mean_z, abs(sampled.covariance_trace - trace) / sampled.covariance_trace_error


@dataclass(frozen=True)
class Scaled(LineEstimator):
    """A planted error: every estimate 20 % too long."""

    def tell(self, plan, losses, state) -> Estimate:
        told = super().tell(plan, losses, state)
        return replace(told, gradient=1.2 * told.gradient)


def scaled(estimator: LineEstimator) -> Scaled:
    return Scaled(estimator.law, estimator.stencil, estimator.epsilon, estimator.n)


@pytest.mark.parametrize("law", ISOTROPIC)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("problem", "noise", "n"), [("quartic", 0.0, 1), ("sextic", 0.3, 3)])
def test_moments_agree_with_theory(method, law, problem, noise, n):
    f = problems.make(problem, dim=DIM)
    x = problems.start(f)
    noise *= EPSILON.get(law, 0.2)
    estimator = estimator_of(method, law, n=n)
    mean_z, trace_z = worst_z(estimator, estimator, f, x, noise)
    assert mean_z < 5
    assert trace_z < 5
    assert max(worst_z(scaled(estimator), estimator, f, x, noise)) > 5  # planted


@pytest.mark.parametrize("method", METHODS)
def test_planted_errors_of_the_theory_are_seen(method):
    f = problems.make("sextic", dim=DIM)
    x = problems.start(f)
    right = estimator_of(method, "gaussian")
    for wrong in (
        replace(right, law=ISOTROPIC["sphere"]),  # c_d is d, not d + 2
        replace(right, n=2),
        replace(right, stencil=methods.make("kerzoo", order=5).stencil),
    ):
        assert max(worst_z(right, wrong, f, x)) > 5
    assert worst_z(right, right, f, x, noise=0.1, theory_noise=0.0)[1] > 5
    assert worst_z(right, right, f, x, noise=0.2, theory_noise=0.25)[1] > 5


def test_the_noise_of_a_shared_base_point_is_one_draw():
    """With f = 0 the two coefficients of forward are (e_i - e_0) / (2 epsilon): they correlate by exactly 1/2."""
    f = problems.make("quadratic", dim=2)
    forward = methods.make("forward", epsilon=1.0, n=2)
    sampled = moments(forward, lambda x: x.new_zeros(x.shape[:-1]), f.centre, samples=SAMPLES, noise=1.0)
    expected = forward.stencil.noise_second_moment() * 2 / 2
    assert abs(sampled.covariance_trace - expected) < 5 * sampled.covariance_trace_error
    zeros = {"f": lambda x: x.new_zeros(x.shape[:-1]), "x": torch.ones(1, dtype=torch.float64)}
    rows = estimate(methods.make("forward", epsilon=1.0, n=2, law="rademacher"), samples=SAMPLES, noise=1.0, **zeros)
    # g = (s_1 (e_1 - e_0) + s_2 (e_2 - e_0)) / 2: fourth moment 3 where the signs agree has excess from the shared e_0
    fourth = rows.pow(4)
    agree, differ = (4 + 2) / 4, 2 / 4  # variances of g given s_1 = s_2, and given s_1 = -s_2
    wanted = 3 * (agree**2 + differ**2) / 2
    error = float(fourth.std()) / math.sqrt(SAMPLES)
    assert abs(float(fourth.mean()) - wanted) < 5 * error
    assert abs(float(fourth.mean()) - 3.0) > 5 * error  # planted: base noise drawn anew for each line


@pytest.mark.parametrize("method", METHODS)
def test_the_noise_of_every_chunk_and_key_is_its_own(method):
    """With f = 0 and signs for directions, |g| is the noise and nothing else."""
    x, size = torch.ones(300, dtype=torch.float64), chunk_rows(300)
    estimator = methods.make(method, law="rademacher", epsilon=1.0)
    noise = [
        estimate(estimator, lambda p: 0 * p[..., 0], x, key=key, samples=2 * size + 1, noise=1.0)[:, 0].abs()
        for key in (0, 1)
    ]
    assert len(torch.cat(noise).unique()) == 2 * (2 * size + 1)


def test_queries_of_forward_count_the_base_point_once():
    assert [methods.make("forward", n=n).ask(0, ()).queries for n in (1, 3)] == [2, 4]
    calls = []
    f = lambda points: (calls.append(1), points.square().sum(-1))[1]  # noqa: E731
    told = query(FlatSpace(torch.ones(4, dtype=torch.float64)), methods.make("forward", n=3), f, 0, ())
    assert told.queries == len(calls) == 4


@pytest.mark.parametrize(("method", "law"), [(METHODS[i % len(METHODS)], law) for i, law in enumerate(ISOTROPIC)])
def test_rows_depend_on_neither_the_total_nor_the_threads(method, law):
    f = problems.make("sextic", dim=300)
    x, size = problems.start(f), chunk_rows(300)
    estimator = estimator_of(method, law, n=2)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        rows = estimate(estimator, f, x, key=3, samples=3 * size + 5, noise=0.1)
        torch.set_num_threads(3)
        assert torch.equal(estimate(estimator, f, x, key=3, samples=3 * size + 5, noise=0.1), rows)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    scale = float(rows.abs().max())
    for samples in (1, 2, size - 1, size, size + 1, 2 * size + 3):
        fewer = estimate(estimator, f, x, key=3, samples=samples, noise=0.1)
        assert fewer.shape == (samples, 300)
        assert float((fewer - rows[:samples]).abs().max()) < 1e-11 * scale
    # no chunk repeats another
    assert len(torch.unique(rows[:, :8].abs().sum(-1) + rows.abs().sum(-1))) > 0.9 * len(rows)
    other = estimate(estimator, f, x, key=4, samples=size, noise=0.1)
    assert not torch.isclose(other, rows[:size]).all(-1).any()


@given(
    dim=st.integers(1, 40),
    law=st.sampled_from(list(ISOTROPIC)),
    method=st.sampled_from(METHODS),
    key=st.integers(0, 2**63),
)
def test_an_elementwise_function_gives_rows_equal_to_the_last_bit(dim, law, method, key):
    def f(points: Tensor) -> Tensor:
        return points[..., 0] ** 3 + points[..., -1]

    x = torch.linspace(-1, 1, dim, dtype=torch.float64)
    rows = estimate(estimator_of(method, law), f, x, key=key, samples=40)
    fewer = estimate(estimator_of(method, law), f, x, key=key, samples=7)
    assert torch.equal(rows[:7], fewer)
    assert rows.dtype == torch.float64
    assert rows.isfinite().all()


def test_chunks_fit_the_cache_and_tile_the_samples():
    for dim in (1, 7, 8, 16, 1000, 131_072, 131_073, 10**7):
        rows = chunk_rows(dim)
        assert rows & (rows - 1) == 0 and 1 <= rows <= CHUNK_ROWS
        assert rows == 1 or rows * dim <= CHUNK_ENTRIES
        assert rows == CHUNK_ROWS or 2 * rows * dim > CHUNK_ENTRIES


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("extra", [-1, 0, 1, 200])
def test_moments_are_those_of_the_rows(method, extra):
    f = problems.make("quartic", dim=300)
    x, samples = problems.start(f), chunk_rows(300) + extra
    estimator = estimator_of(method, "gaussian")
    rows = estimate(estimator, f, x, key=8, samples=samples)
    ours = moments(estimator, f, x, key=8, samples=samples)
    assert ours.samples == samples
    assert torch.allclose(ours.mean, rows.mean(0), rtol=1e-10, atol=1e-12)
    assert torch.allclose(ours.mean_error, rows.std(0) / math.sqrt(samples), rtol=1e-10)
    assert ours.covariance_trace == pytest.approx(float(rows.var(0).sum()), rel=1e-10)
    norm2 = (rows - rows.mean(0)).square().sum(-1)
    rel = 1e-10 if extra <= 0 else 0.05  # the shift is the mean of the first chunk
    assert ours.covariance_trace_error == pytest.approx(float(norm2.std()) / math.sqrt(samples), rel=rel)


def test_moments_depend_on_no_threads():
    f = problems.make("quartic", dim=300)
    estimator, x = methods.make("kerzoo", n=2), problems.start(f)
    results = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        results.append(moments(estimator, f, x, samples=4 * chunk_rows(300) + 3, noise=0.1))
    torch.set_num_threads(1)
    one, three = results
    assert torch.allclose(one.mean, three.mean, rtol=1e-9, atol=1e-9 * float(one.mean_error.max()))
    assert one.covariance_trace == pytest.approx(three.covariance_trace, rel=1e-12)


def test_moments_cancel_no_digits():
    """A mean a million times the spread: the sums are shifted before they are squared."""
    x = torch.zeros(1, dtype=torch.float64)
    estimator = methods.make("mezo", law="rademacher", epsilon=1.0)
    noisy = moments(estimator, lambda p: 1e6 * p[..., 0], x, samples=SAMPLES, noise=1.0)
    assert abs(noisy.covariance_trace - 0.5) < 5 * noisy.covariance_trace_error
    assert abs(float(noisy.mean) - 1e6) < 5 * float(noisy.mean_error)


def test_one_sample_claims_no_certainty():
    one = moments(methods.make("mezo"), problems.make("quartic", dim=4), torch.ones(4, dtype=torch.float64), samples=1)
    assert not (one.mean_error == 0).any(), "the standard error of a mean of one sample is unknown, not 0"


@pytest.mark.parametrize("law", ISOTROPIC)
def test_dimension_one(law):
    f = problems.make("sextic", dim=1)
    x = problems.start(f)
    for method in METHODS:
        estimator = estimator_of(method, law)
        rows = estimate(estimator, f, x, samples=5000)
        assert rows.shape == (5000, 1)
        z = (rows.mean() - f.gradient(x) - theory.bias(estimator, f, x)) / (rows.std() / math.sqrt(5000) + 1e-12)
        assert abs(float(z)) < 5
    if law != "gaussian":  # u = ±1: the central difference does not vary at all
        rows = estimate(estimator_of("mezo", law, epsilon=0.5), f, x, samples=64)
        assert torch.allclose(rows, (f(x + 0.5) - f(x - 0.5)).expand(64, 1), rtol=1e-12)


def test_a_large_dimension():
    dim = 200_000
    x = torch.linspace(-1, 1, dim, dtype=torch.float64)
    rows = estimate(methods.make("mezo", law="rademacher"), lambda p: 0.5 * p.square().sum(-1), x, samples=3)
    signs = rows.sign()
    assert torch.allclose(rows, (signs @ x)[:, None] * signs, rtol=1e-7)  # (x . u) u, whatever the sign of u
    assert (signs[:, None] * signs[None]).sum(-1).fill_diagonal_(0).abs().max() < 6 * math.sqrt(dim)
    for law in ("gaussian", "sphere"):
        rows = estimate(methods.make("mezo", law=law), lambda p: p[..., 0], x, samples=2)
        assert float((rows[0] @ rows[1]) / rows[0].norm() / rows[1].norm()) == pytest.approx(0, abs=6 / math.sqrt(dim))
    rows = estimate(methods.make("coordinate", epsilon=0.5), lambda p: p.sum(-1), x, samples=3)
    assert torch.allclose(rows.sum(-1), torch.tensor(float(dim), dtype=torch.float64), rtol=1e-9)
    assert (rows != 0).sum(-1).tolist() == [1, 1, 1]
    assert moments(methods.make("kerzoo"), lambda p: p[..., 0], x, samples=2).mean.shape == (dim,)


ONE = torch.ones(4, dtype=torch.float64)


def square(points: Tensor) -> Tensor:
    return points.square().sum(-1)


@pytest.mark.parametrize("draw", [estimate, moments])
class TestErrors:
    @pytest.mark.parametrize("samples", [0, -1, 1.5])
    def test_samples(self, draw, samples):
        with pytest.raises(ValueError, match=f"samples is {samples}"):
            draw(methods.make("mezo"), square, ONE, samples=samples)

    @pytest.mark.parametrize("f", [torch.square, torch.sum, lambda p: 0.0, lambda p: p.sum(-1, keepdim=True)])
    def test_a_function_of_the_wrong_shape(self, draw, f):
        with pytest.raises(ValueError, match="f must map points"):
            draw(methods.make("mezo"), f, ONE, samples=3)

    def test_points_that_are_none(self, draw):
        for x in (torch.ones(4, dtype=torch.int64), torch.tensor(1.0), torch.ones(0), [1.0, 2.0]):
            with pytest.raises(ValueError, match="floating-point"):
                draw(methods.make("mezo"), square, x, samples=3)
        with pytest.raises(ValueError, match="one point"):
            draw(methods.make("mezo"), square, ONE.expand(2, 4), samples=3)

    @pytest.mark.parametrize("method", [*METHODS, "coordinate"])
    def test_an_epsilon_below_the_resolution(self, draw, method):
        with pytest.raises(ValueError, match=r"epsilon 1e-30 is below the resolution.*100%"):
            draw(methods.make(method, epsilon=1e-30), square, ONE, samples=3)

    def test_an_exception_of_the_function_comes_through(self, draw):
        def f(points):
            raise KeyError("mine")

        threads = torch.get_num_threads()
        with pytest.raises(KeyError, match="mine"):
            draw(methods.make("mezo"), f, ONE, samples=100_000)
        assert torch.get_num_threads() == threads


@pytest.mark.parametrize("epsilon", [0.0, -1e-3, float("nan"), float("inf"), "1e-3", None])
def test_an_epsilon_that_is_none(epsilon):
    with pytest.raises(ValueError, match="epsilon is"):
        methods.make("mezo", epsilon=epsilon)


def test_x_is_left_alone_and_may_be_float32():
    x = torch.ones(4, requires_grad=True)
    rows = estimate(methods.make("mezo"), square, x, samples=50)
    assert rows.dtype == torch.float64 and not rows.requires_grad
    assert torch.equal(x.detach(), torch.ones(4))
    assert torch.equal(rows, estimate(methods.make("mezo"), square, ONE, samples=50))


EPSILONS = (0.03, 0.06)


def slope_of(method: str, law: str, order: int = 3) -> float:
    f = problems.make("sextic", dim=DIM)
    x = problems.start(f)
    options = {"order": order} if method == "kerzoo" else {}
    sizes = []
    for epsilon in EPSILONS:
        estimator = methods.make(method, epsilon=epsilon, law=law, **options)
        sampled = controlled_moments(estimator, f, f.gradient(x), x, key=5, samples=4000)
        sizes.append(math.log(float(sampled.mean @ theory.bias(estimator, f, x))) / 2)
    return (sizes[1] - sizes[0]) / math.log(EPSILONS[1] / EPSILONS[0])


@pytest.mark.parametrize("law", ISOTROPIC)
def test_the_order_of_the_bias_shows_as_a_slope(law):
    assert slope_of("mezo", law) == pytest.approx(2, abs=0.05)
    assert slope_of("forward", law) == pytest.approx(2, abs=0.05)
    assert slope_of("kerzoo", law, order=1) == pytest.approx(2, abs=0.05)
    assert slope_of("kerzoo", law) == pytest.approx(4, abs=0.05)
    assert slope_of("richardson", law) == pytest.approx(4, abs=0.05)


@pytest.mark.parametrize("law", ISOTROPIC)
@pytest.mark.parametrize("method", [*METHODS, "printed"])
def test_controlled_moments_agree_with_theory(method, law):
    f = problems.make("sextic", dim=DIM)
    x = problems.start(f)
    options = {"kernel": "kerzoo5_as_printed"} if method == "printed" else {}
    estimator = methods.make("kerzoo" if options else method, epsilon=0.3, law=law, **options)
    expected = theory.bias(estimator, f, x)
    rounding = 1e-11

    def worst(gradient: Tensor) -> float:
        sampled = controlled_moments(estimator, f, gradient, x, key=6, samples=4000)
        return float(((sampled.mean - expected).abs() / (sampled.mean_error + rounding)).max())

    gradient = f.gradient(x)
    assert worst(gradient) < 5
    assert worst(1.5 * gradient) > 5  # planted: a wrong gradient


def test_controlled_moments_see_a_theory_a_tenth_off_where_plain_moments_cannot():
    f = problems.make("sextic", dim=DIM)
    x = problems.start(f)
    estimator = methods.make("mezo", epsilon=0.03)
    expected = theory.bias(estimator, f, x)
    sampled = controlled_moments(estimator, f, f.gradient(x), x, key=6, samples=10 * SAMPLES)
    assert float(((sampled.mean - expected) / sampled.mean_error).abs().max()) < 5
    assert float(((sampled.mean - 1.1 * expected) / sampled.mean_error).abs().max()) > 5  # planted
    plain = moments(estimator, f, x, key=6, samples=SAMPLES)
    assert float(((plain.mean - f.gradient(x) - 1.1 * expected) / plain.mean_error).abs().max()) < 5
    assert (sampled.mean_error < 0.02 * plain.mean_error).all()


def test_a_quadratic_has_no_bias_to_control():
    f = problems.make("quadratic", dim=DIM)
    x = problems.start(f)
    sampled = controlled_moments(methods.make("mezo", law=Rademacher()), f, f.gradient(x), x, samples=1000)
    assert float(sampled.mean.abs().max()) < 1e-10
    assert sampled.covariance_trace < 1e-20


MEMORY = """
import resource, sys, torch
from zobench import estimate, methods
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
estimator, x, f = methods.make("mezo"), torch.ones(16, dtype=torch.float64), lambda p: p.square().sum(-1)
estimate(estimator, f, x, samples=100)
before = peak()
rows = estimate(estimator, f, x, samples=2_000_000)
print(peak() - before - rows.nbytes)
"""


def test_memory_is_the_result_and_less_than_256_mib():
    printed = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout
    extra = int(printed)
    assert extra < 256 << 20


def test_the_error_along_a_direction_is_that_of_the_projection():
    """The coordinates of an estimate are correlated: their errors alone would claim too much along the gradient."""
    f = problems.make("quartic", 6)
    x, estimator = problems.start(f), methods.make("mezo", epsilon=0.1)
    along = f.gradient(x) / f.gradient(x).norm()
    rows = estimate(estimator, f, x, samples=20_000) @ along
    found = moments(estimator, f, x, samples=20_000)
    assert found.error_along(along) == pytest.approx(float(rows.std() / len(rows) ** 0.5), rel=1e-9)
    assert found.error_along(along) > 1.1 * float((along * found.mean_error).norm())
    assert moments(estimator, problems.make("quartic", 65), torch.zeros(65).double(), samples=9).covariance is None


def test_a_batch_that_is_not_that_of_x_is_told():
    f = problems.make("quadratic", 3)
    for method in ("mezo", "forward"):
        with pytest.raises(ValueError, match="ask with the batch of x"):
            query(FlatSpace(torch.zeros(5, 3).double()), methods.make(method), f, 0, ())
        assert query(FlatSpace(torch.zeros(5, 3).double()), methods.make(method), f, 0, (), (5,)).gradient is not None


def test_samples_of_one_length_have_an_error_of_zero_whatever_is_rounded():
    """Of two samples each is as far from the mean: |y|^2 has no variance, which rounding may turn negative."""
    f = problems.make("quartic", dim=5)
    for key in range(50):
        two = moments(methods.make("mezo"), f, problems.start(f), key=key, samples=2)
        assert 0 <= two.covariance_trace_error < 1e-6 * two.covariance_trace
