"""Stencils: moments, costs, and what each road to less bias pays."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import zobench
from zobench import (
    CentralStencil,
    ForwardStencil,
    KernelStencil,
    OnePointStencil,
    RichardsonStencil,
    SlopeStencil,
    SymmetricStencil,
    TelescopingStencil,
    least_noise,
)
from zobench.kernels import chebyshev, least_second_moment, legendre

pytestmark = pytest.mark.usefixtures("one_thread")

STENCILS = [  # E[(sum w r)^2], E[sum w^2], m_3, m_2: facts/theory.md
    (OnePointStencil(), 1, 1, 1, 1),
    (ForwardStencil(), 1, 2, 1, 1),
    (CentralStencil(), 1, 1 / 2, 1, 0),
    (RichardsonStencil(), 1, 65 / 72, 0, 0),
    (SymmetricStencil((0.5, 1.0)), 1, 65 / 18, 0, 0),
    (least_noise(4), 1, 3.488425, 0, 0),
    (least_noise(6), 1, 7.966971, 0, 0),
    (KernelStencil(legendre(1)), 9 / 5, 3 / 2, 3 / 5, 0),
    (KernelStencil(legendre(3)), 25 / 4, 75 / 8, 0, 0),
    (KernelStencil(legendre(5)), 13.2512, 57.4219 / 2, 0, 0),
    (KernelStencil(chebyshev(3)), 3, 9 / 2, 0, 0),
    (TelescopingStencil(0.5, 2), 7 / 4, 79.1875, 4.0**-2, 0),
    (TelescopingStencil(0.5, 2, by_parts=True), 1, 72.142857, 4.0**-2, 0),
]


@pytest.mark.parametrize(("stencil", "slope", "noise", "third", "second"), STENCILS, ids=lambda v: repr(v))
def test_stencil_moments(stencil, slope, noise, third, second):
    total = 1.0 if stencil == OnePointStencil() else 0.0
    for moment in (stencil.moment, lambda j: (rule := stencil.quadrature(j)).mean(rule.power_sums(j))):
        found = [moment(j) for j in range(4)]
        assert found == pytest.approx([total, 1.0, second, third], abs=1e-12)
    assert stencil.slope_second_moment() == pytest.approx(slope, rel=5e-6)
    assert stencil.noise_second_moment() == pytest.approx(noise, rel=5e-6)


@pytest.mark.parametrize(("stencil", "slope", "noise", "third", "second"), STENCILS, ids=lambda v: repr(v))
def test_drawn_stencils_are_the_ones_of_theory(stencil, slope, noise, third, second):
    nodes, weights = stencil.draw(99, (100_000, 2))
    assert nodes.dtype == weights.dtype == torch.float64
    assert nodes.shape == weights.shape == (100_000, 2, nodes.shape[-1])
    sums = [(weights * nodes**j).sum(-1) for j in (1, 3)]
    checked = [(sums[0], 1.0), (sums[0] ** 2, slope), (sums[1], third), ((weights**2).sum(-1), noise)]
    for sample, mean in checked:
        error = float(sample.std()) / sample.numel() ** 0.5
        assert abs(float(sample.mean()) - mean) < 5 * error + 1e-4
        assert abs(float(sample.mean()) - 1.5 * mean) > 5 * error + 1e-4 or mean == 0  # planted: half as much again


@pytest.mark.parametrize("stencil", [row[0] for row in STENCILS], ids=repr)
def test_the_repr_is_the_identity(stencil):
    again = eval(repr(stencil), {**vars(zobench), **vars(zobench.kernels)})
    assert again == stencil and hash(again) == hash(stencil)


REACHES = st.lists(st.floats(0.1, 2), min_size=1, max_size=5)


def apart(reaches: list[float]) -> bool:
    ordered = sorted(reaches)
    return all(b > 1.1 * a for a, b in pairwise(ordered))


@given(reaches=REACHES)
def test_extrapolation_removes_all_odd_moments_but_the_next(reaches):
    assume(apart(reaches))
    stencil, pairs = SymmetricStencil(tuple(reaches)), len(reaches)
    scale = [sum(abs(w) * abs(r) ** j for w, r in zip(stencil.weights, stencil.nodes, strict=True)) for j in range(12)]
    for j in range(2 * pairs + 1):
        assert stencil.moment(j) == pytest.approx(float(j == 1), abs=1e-12 * max(1.0, scale[j]))
    sign, product = (-1) ** (pairs - 1), math.prod(r**2 for r in reaches)
    assert stencil.moment(2 * pairs + 1) == pytest.approx(sign * product, abs=1e-12 * max(1.0, scale[2 * pairs + 1]))


def test_richardson_is_the_symmetric_stencil_of_one_and_two():
    symmetric = SymmetricStencil((1, 2))
    assert symmetric.nodes == RichardsonStencil().nodes
    assert symmetric.weights == pytest.approx(RichardsonStencil().weights, rel=1e-15)
    assert SymmetricStencil((1,)).nodes == CentralStencil().nodes
    assert SymmetricStencil((1,)).weights == CentralStencil().weights


def noise(reaches: list[float]) -> float:
    return SymmetricStencil(tuple(reaches)).noise_second_moment()


@pytest.mark.parametrize("evaluations", [4, 6, 8, 10, 12])
def test_no_neighbour_has_less_noise(evaluations):
    reaches = list(least_noise(evaluations).reaches)
    least = noise(reaches)
    assert len(reaches) == evaluations // 2 and reaches == sorted(reaches) and reaches[-1] == 1.0
    for k in range(len(reaches)):
        for change in (0.97, 0.999, 1.001, 1.03):
            if (moved := reaches[k] * change) < 1.0:
                assert noise([*reaches[:k], moved, *reaches[k + 1 :]]) > least * (1 + 1e-9), (k, change)
    generator = torch.Generator().manual_seed(evaluations)
    for others in torch.rand(200, len(reaches) - 1, generator=generator, dtype=torch.float64).tolist():
        assert noise([*others, 1.0]) > least  # no other minimum is lower


def test_four_evaluations_in_closed_form():
    z = least_noise(4).reaches[0] ** 2
    assert 2 * z**3 + 3 * z == pytest.approx(1.0, abs=1e-8)
    assert least_noise(4).noise_second_moment() == pytest.approx((1 / z + z**2) / (2 * (1 - z) ** 2), rel=1e-14)
    assert least_noise(4).noise_second_moment() < 65 / 18
    assert least_noise(2).weights == CentralStencil().weights


@pytest.mark.parametrize(("evaluations", "loss"), [(4, 1.19), (6, 1.44), (8, 1.73)])
def test_several_directions_of_an_optimal_kernel_cost_less_than_one_direction_looked_along_at_length(evaluations, loss):
    """At equal evaluations and order, at every noise-to-gradient ratio."""
    ratios = torch.logspace(-6, 6, 241, dtype=torch.float64).tolist()
    one = [1 + 2 * t * least_noise(evaluations).noise_second_moment() for t in ratios]
    many = [least_second_moment(evaluations - 1, t) / (evaluations // 2) for t in ratios]
    quotients = [a / b for a, b in zip(one, many, strict=True)]
    assert loss < min(quotients) < loss + 0.01


def single_term_noise(p: list[float]) -> float:
    return 1 / (4 * p[0]) + 5 / 8 * sum(4**k / p[k] for k in range(1, len(p)))


def by_parts_noise(p: list[float]) -> float:
    below = [sum(p[:k]) for k in range(len(p) + 1)]
    terms = ((4**k * below[k + 1] ** 2 + 4 ** (k - 1) * below[k] ** 2) / (2 * p[k]) for k in range(1, len(p)))
    return p[0] / 4 + sum(terms)


@given(decay=st.floats(0.1, 0.95), depth=st.integers(1, 15))
def test_telescoping_moments(decay, depth):
    single, parts = TelescopingStencil(decay, depth), TelescopingStencil(decay, depth, by_parts=True)
    p = single.quadrature(0).probabilities.tolist()
    assert p[1] / p[0] == pytest.approx(decay) and sum(p) == pytest.approx(1.0) and len(p) == depth + 1
    for stencil in (single, parts):
        rule = stencil.quadrature(9)
        for j in range(8):
            wanted = 2.0 ** (-depth * (j - 1)) if j % 2 else 0.0
            assert stencil.moment(j) == wanted
            scale = rule.mean((rule.weights * rule.nodes**j).abs().sum(-1))
            assert rule.mean(rule.power_sums(j)) == pytest.approx(wanted, abs=1e-14 * max(1.0, scale))
    assert single.slope_second_moment() == pytest.approx(1 / p[0], rel=1e-12)
    assert parts.slope_second_moment() == pytest.approx(1.0, rel=1e-9)
    assert single.noise_second_moment() == pytest.approx(single_term_noise(p), rel=1e-12)
    assert parts.noise_second_moment() == pytest.approx(by_parts_noise(p), rel=1e-12)
    assert parts.noise_second_moment() < single.noise_second_moment()
    assert single.noise_second_moment() > 5 / 8 * (2 ** (depth + 1) - 2) ** 2  # whatever the law of k
    last = SymmetricStencil((2.0**-depth,))  # the same mean from two evaluations, at less variance
    assert [last.moment(j) for j in (1, 3, 5, 7)] == pytest.approx([single.moment(j) for j in (1, 3, 5, 7)], rel=1e-12)
    assert last.noise_second_moment() == pytest.approx(4**depth / 2)
    assert last.noise_second_moment() < parts.noise_second_moment()


def test_a_wrong_probability_is_seen_in_the_mean():
    """Planted: terms played twice as often as their weights say."""
    rule = TelescopingStencil(0.5, 6).quadrature(3)
    wrong = rule.probabilities * torch.tensor([1.0, 1.1] + 5 * [1.0], dtype=torch.float64)
    found = float(wrong @ rule.power_sums(3))
    assert rule.mean(rule.power_sums(3)) == pytest.approx(4.0**-6, abs=1e-15)
    assert found != pytest.approx(4.0**-6, abs=1e-3)


def test_a_telescoping_stencil_is_nearly_unbiased_on_a_sextic_line():
    """E sum_k w_k f(r_k u) of f = r + r^3 + r^5: the slope at 0, where one central difference gives 3."""
    values = lambda r: r + r**3 + r**5  # noqa: E731
    for stencil in (TelescopingStencil(), TelescopingStencil(by_parts=True), TelescopingStencil(0.3, 25)):
        rule = stencil.quadrature(5)
        assert rule.mean((rule.weights * values(rule.nodes)).sum(-1)) == pytest.approx(1.0, abs=1e-10)
    rule = CentralStencil().quadrature(5)
    assert rule.mean((rule.weights * values(rule.nodes)).sum(-1)) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SymmetricStencil(()), r"reaches are \(\): give distinct positive"),
        (lambda: SymmetricStencil((1.0, 1.0)), "distinct positive"),
        (lambda: SymmetricStencil((0.0, 1.0)), "distinct positive"),
        (lambda: SymmetricStencil((math.inf,)), "distinct positive"),
        (lambda: least_noise(5), "evaluations is 5: give an even number"),
        (lambda: least_noise(0), "evaluations is 0"),
        (lambda: least_noise(14), "evaluations is 14"),
        (lambda: TelescopingStencil(0.0), "decay is 0.0"),
        (lambda: TelescopingStencil(1.0), "decay is 1.0"),
        (lambda: TelescopingStencil(math.nan), "decay is nan"),
        (lambda: TelescopingStencil(0.5, 0), "depth is 0"),
        (lambda: TelescopingStencil(0.5, 2.5), "depth is 2.5"),
        (lambda: TelescopingStencil(0.25, 27), "never be drawn; give a depth of 26 or less"),
        (lambda: TelescopingStencil(0.5, 5, "yes"), "by_parts is 'yes'"),
        (lambda: KernelStencil("legendre"), "kernel is 'legendre'"),
    ],
)
def test_bad_input_gets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    assert TelescopingStencil(0.25, 26).moment(1) == 1.0


def test_a_step_draws_stencils_and_directions_from_streams_of_their_own():
    """Rows published under a key hold for ever: reaches come from derive(key, "stencil"), directions from the key."""
    stencil = KernelStencil(legendre(3))
    plan = zobench.LineEstimator(zobench.Gaussian(), stencil, 0.25, 3).ask(11, (), (5,))
    nodes, weights = stencil.draw(zobench.derive(11, "stencil"), (5, 3))
    assert torch.equal(plan.offsets, 0.25 * nodes) and torch.allclose(plan.weights, weights / (3 * 0.25), rtol=1e-14)
    assert not torch.isclose(plan.offsets, 0.25 * stencil.draw(11, (5, 3))[0]).any()


def test_the_slope_is_the_limit_of_the_central_difference():
    stencil = SlopeStencil()
    nodes, weights = stencil.draw(1, (2,))
    assert nodes.tolist() == [[0.0, 0.0]] * 2 and weights.tolist() == [[0.0, 1.0]] * 2  # of the loss, of the slope
    assert [stencil.moment(j) for j in range(4)] == [0.0, 1.0, 0.0, 0.0]
    assert stencil.slope_second_moment() == 1.0 and stencil.noise_second_moment() == 0.0


def test_a_slope_is_the_whole_coefficient_and_no_loss():
    """Of f(x) = a . x + 3: g = (a . u) u, and the one loss of a line is f(x)."""
    a, x = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.3, 0.1, 2.0]).double()
    space, law = zobench.FlatSpace(x), zobench.Gaussian()
    told = zobench.query(space, zobench.ForwardGradient(law), lambda p: p @ a + 3, 5, ())
    (u,) = space.dense(zobench.Combination((zobench.Term(law, 5, torch.ones(1).double()),))).reshape(1, 3)
    assert torch.allclose(space.dense(told.gradient), (a @ u) * u, rtol=1e-12)
    assert told.losses.tolist() == [[pytest.approx(float(x @ a) + 3)]]
