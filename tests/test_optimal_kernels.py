"""Kernels of least second moment: against a linear programme, the dual certificate, and every planted departure."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.special import eval_chebyt

from zobench import KernelStencil, kernels
from zobench.kernels import DiscreteKernel, chebyshev, floored, least_second_moment, legendre, on_nodes, optimal

pytestmark = pytest.mark.usefixtures("one_thread")

ORDERS = (1, 3, 5, 7, 9, 11)
RATIOS = (1e-6, 1e-3, 0.1, 1.0, 10.0, 1e6)
INF = math.inf

ratios = st.floats(-6, 6).map(lambda exponent: 10.0**exponent)
orders = st.sampled_from(ORDERS)


def noise(kernel) -> float:
    """E[K^2], without the cancellation of second_moment(1) - second_moment(0)."""
    rule = kernel.quadrature(0)
    return float(rule.probabilities @ rule.values**2)


def cost(r, t):
    return np.sqrt(1 + t / r**2) if t < INF else 1 / r


def programme(order: int, t: float, points: int = 2000) -> float:
    """min (sum_k |A_k| cost_k)^2 over signed masses on a grid of (0, 1], the conditions in the basis T_j(r) / r."""
    r = np.arange(1, points + 1) / points
    basis = np.array([eval_chebyt(j, r) / r for j in range(1, order + 1, 2)])
    slopes = [(-1) ** ((j - 1) // 2) * j for j in range(1, order + 1, 2)]  # T_j'(0)
    c = cost(r, t)
    scaled = basis / c  # masses in units of their cost: a well-scaled programme
    found = linprog(np.ones(2 * points), A_eq=np.hstack((scaled, -scaled)), b_eq=slopes, method="highs")
    assert found.status == 0
    return found.fun**2


@pytest.mark.parametrize("order", [1, 3, 5, 7])
@pytest.mark.parametrize("t", [0.01, 0.1, 1.0, 10.0, INF])
def test_the_linear_programme_agrees(order, t):
    ours = least_second_moment(order, t) if t < INF else float(order**2)
    found = programme(order, t)
    assert ours * (1 - 1e-8) <= found <= ours * (1 + 1e-4)


@pytest.mark.parametrize("t", [0.1, 1.0, INF])
def test_the_programme_reaches_the_bound_where_the_grid_holds_the_nodes(t):
    """With the optimal nodes among the grid's there is no error of the grid left."""
    for order in (3, 5, 7):
        kernel = optimal(order, t)
        r = np.sort(np.concatenate((np.arange(1, 400) / 400, kernel.nodes)))
        rows = np.array([r ** (2 * i) for i in range((order + 1) // 2)]) / cost(r, t)
        found = linprog(np.ones(2 * len(r)), A_eq=np.hstack((rows, -rows)), b_eq=np.eye(len(rows))[0], method="highs")
        bound = least_second_moment(order, t) if t < INF else order**2
        assert found.fun**2 == pytest.approx(bound, rel=1e-6)
        assert found.fun**2 > bound * (1 - 1e-7)


def certificate(order: int, t: float, r: np.ndarray) -> np.ndarray:
    a, b = ((math.sqrt(1 + t) + sign * math.sqrt(t)) / 2 for sign in (1, -1))
    return (-1) ** ((order - 1) // 2) * (a * eval_chebyt(order, r) + b * eval_chebyt(abs(order - 2), r))


@given(order=orders, t=ratios)
def test_the_dual_certificate(order, t):
    """|Q| <= sqrt(r^2 + t) on [-1, 1], Q'(0)^2 is the value, and Q touches at the nodes with the signs of K."""
    r = np.linspace(-1, 1, 4001)
    assert np.all(np.abs(certificate(order, t, r)) <= np.sqrt(r**2 + t) * (1 + 1e-12))
    h = 1e-7
    slope = float(certificate(order, t, np.array(h)) / h)
    assert slope**2 == pytest.approx(least_second_moment(order, t), rel=1e-8)
    kernel = optimal(order, t)
    nodes, values = np.array(kernel.nodes), np.array(kernel.values)
    assert certificate(order, t, nodes) == pytest.approx(np.sign(values) * np.sqrt(nodes**2 + t), rel=1e-9)


def test_a_certificate_of_other_weights_is_no_certificate():
    """Planted: alpha 1 % up breaks the bound, 1 % down proves less."""
    r, t = np.linspace(0, 1, 4001), 1.0
    a, b = (math.sqrt(2) + 1) / 2, (math.sqrt(2) - 1) / 2
    broken = 1.01 * a * eval_chebyt(3, r) + b * r
    assert np.any(np.abs(broken) > np.sqrt(r**2 + t))
    assert (3 * 0.99 * a - b) ** 2 < least_second_moment(3, t) * 0.99


@given(order=orders, t=ratios | st.just(INF))
def test_moment_conditions_and_value(order, t):
    kernel = optimal(order, t)
    for j in range(1, order + 1, 2):
        assert kernel.moment(j) == pytest.approx(float(j == 1), abs=1e-10)
    assert len(kernel.nodes) == (order + 1) // 2 and kernel.nodes[-1] == 1.0
    if order > 1:
        assert abs(kernel.moment(order + 2)) > 1e-10
    if t < INF:
        assert kernel.second_moment(t) == pytest.approx(least_second_moment(order, t), rel=1e-12)
    assert noise(kernel) >= order**2 * (1 - 1e-12)


@given(order=st.sampled_from([q for q in range(3, 32, 2)]), t=ratios)
def test_never_half_of_the_legendre_kernel(order, t):
    assert optimal(order, t).second_moment(t) < 0.5 * legendre(order).second_moment(t)
    assert noise(chebyshev(order)) < 0.5 * noise(legendre(order))


@pytest.mark.parametrize(("order", "least", "most"), [(3, 4 / 25, 12 / 25), (5, 0.0755, 64 / 147)])
def test_the_gain_over_legendre_rises_with_noise_to_its_limits(order, least, most):
    gains = [optimal(order, t).second_moment(t) / legendre(order).second_moment(t) for t in np.logspace(-12, 12, 97)]
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(gains))
    assert gains[0] == pytest.approx(least, abs=5e-5) and gains[-1] == pytest.approx(most, rel=1e-9)
    assert noise(chebyshev(order)) / noise(legendre(order)) == pytest.approx(most, rel=1e-12)


@pytest.mark.parametrize(
    ("order", "t", "value"),
    [(3, 0.1, 2.827), (3, 1, 11.657), (3, 10, 92.952), (5, 0.1, 5.353), (5, 1, 29.314), (5, 10, 254.905)],
)
def test_the_table_of_facts(order, t, value):
    assert optimal(order, t).second_moment(t) == pytest.approx(value, abs=5e-4)


@given(t=ratios)
def test_order_three_in_closed_form(t):
    kernel = optimal(3, t)
    assert kernel.nodes[0] ** 2 == pytest.approx(math.sqrt(t) * (math.sqrt(1 + t) - math.sqrt(t)) / 2, rel=1e-8)
    assert chebyshev(3).second_moment(t) == pytest.approx(12 / 25 * legendre(3).second_moment(t), rel=1e-12)


@pytest.mark.parametrize("order", range(1, 14, 2))
def test_the_chebyshev_kernel(order):
    kernel = chebyshev(order)
    extrema = np.sin((np.arange((order + 1) // 2) + 0.5) * math.pi / order)
    assert kernel.nodes == pytest.approx(extrema, rel=1e-14)
    assert np.abs(eval_chebyt(order, kernel.nodes)) == pytest.approx(np.ones(len(kernel.nodes)), rel=1e-12)
    assert np.abs(kernel.values) == pytest.approx(np.full(len(kernel.nodes), float(order)), rel=1e-12)
    assert noise(kernel) == pytest.approx(order**2, rel=1e-13)
    assert optimal(order, INF) == kernel
    far = optimal(order, 1e12)
    assert far.nodes == pytest.approx(kernel.nodes, rel=1e-9)
    if order == 3:
        assert kernel.probabilities == pytest.approx((8 / 9, 1 / 9)) and kernel.values == pytest.approx((3, -3))


@given(order=orders, t=ratios)
def test_order_one_is_the_central_difference_and_the_rest_is_not(order, t):
    kernel = optimal(order, t)
    assert ((kernel.nodes, kernel.probabilities, kernel.values) == ((1.0,), (1.0,), (1.0,))) == (order == 1)


@given(order=st.sampled_from(ORDERS[1:]), least=st.floats(1e-3, 0.9))
def test_a_floor_on_the_nodes(order, least):
    kernel = floored(order, least)
    assert kernel.nodes[0] == pytest.approx(least, rel=1e-12) and kernel.nodes[-1] == 1.0
    wanted = math.cosh((order - 1) * math.atanh(least)) ** 2
    assert kernel.second_moment() == pytest.approx(wanted, rel=1e-9)
    for j in range(1, order + 1, 2):
        assert kernel.moment(j) == pytest.approx(float(j == 1), abs=1e-10)


@pytest.mark.parametrize("order", [3, 5, 7])
def test_the_floor_against_the_programme(order):
    r = np.linspace(0.2, 1, 1501)
    basis = np.array([eval_chebyt(j, r) / r for j in range(1, order + 1, 2)])
    slopes = [(-1) ** ((j - 1) // 2) * j for j in range(1, order + 1, 2)]
    found = linprog(np.ones(2 * len(r)), A_eq=np.hstack((basis, -basis)), b_eq=slopes, method="highs")
    value = floored(order, 0.2).second_moment()
    assert value * (1 - 1e-8) <= found.fun**2 <= value * (1 + 1e-4)
    assert floored(order, 0.1 / (order - 1)).second_moment() == pytest.approx(1.01, abs=1e-4)


def rebuilt(kernel: DiscreteKernel, nodes, powers) -> DiscreteKernel:
    """The kernel on other nodes or with other probabilities: the conditions hold, K = A / (p r)."""
    r = np.array(nodes)
    squares = r**2
    masses = [np.prod([b / (b - a) for j, b in enumerate(squares) if j != k]) for k, a in enumerate(squares)]
    p = np.array(kernel.probabilities) ** powers
    p /= p.sum()
    return DiscreteKernel("planted", tuple(r), tuple(p), tuple(masses / (p * r)), kernel.order)


@given(order=st.sampled_from(ORDERS[1:]), t=ratios, change=st.sampled_from([-0.02, 0.02]), place=st.integers(0, 9))
def test_planted_probabilities_and_nodes_cost_more(order, t, change, place):
    kernel = optimal(order, t)
    least = kernel.second_moment(t)
    assert rebuilt(kernel, kernel.nodes, 1.0).second_moment(t) == pytest.approx(least, rel=1e-9)
    assert rebuilt(kernel, kernel.nodes, 1 + 5 * change).second_moment(t) > least * (1 + 1e-9)
    nodes = list(kernel.nodes)
    nodes[place % len(nodes)] *= 1 - abs(change) if place % len(nodes) == len(nodes) - 1 else 1 + change
    assert rebuilt(kernel, nodes, 1.0).second_moment(t) > least * (1 + 1e-9)
    assert on_nodes(tuple(nodes), t).second_moment(t) > least * (1 + 1e-9)


@given(order=st.sampled_from(ORDERS[1:]), t=st.floats(1e-6, 10), factor=st.sampled_from([0.1, 0.5, 2.0, 10.0]))
def test_a_kernel_for_another_ratio_costs_more(order, t, factor):
    assert optimal(order, factor * t).second_moment(t) > least_second_moment(order, t) * (1 + 1e-6)


def test_two_given_nodes():
    kernel = on_nodes((1, 0.5))
    assert kernel.probabilities == pytest.approx((0.8, 0.2))
    assert kernel.second_moment() == pytest.approx(25 / 9) and noise(kernel) / 2 == pytest.approx(85 / 18)


@pytest.mark.parametrize("kernel", [optimal(3, 0.1), optimal(5, 2.0), chebyshev(7), floored(3, 0.2)], ids=repr)
def test_drawn_nodes_have_the_law(kernel):
    r, k = kernel.draw(20250518, (1_000_000,))
    assert r.shape == k.shape == (1_000_000,) and r.dtype == k.dtype == torch.float64
    for node, p, value in zip(kernel.nodes, kernel.probabilities, kernel.values, strict=True):
        for sign in (1, -1):
            hit = r == sign * node
            assert torch.equal(k[hit], torch.full((int(hit.sum()),), sign * value, dtype=torch.float64))
            z = (float(hit.double().mean()) - p / 2) / math.sqrt(p / 2 * (1 - p / 2) / len(r))
            assert abs(z) < 5
            assert abs(z + 0.02 * p * math.sqrt(len(r))) > 5 or p < 0.3  # planted: a probability 2 % off
    assert torch.equal(kernel.draw(20250518, (10,))[0], r[:10])
    for sample, mean in [(r * k, 1.0), (r**3 * k, 0.0), ((r * k) ** 2, kernel.second_moment())]:
        error = float(sample.std()) / len(r) ** 0.5
        assert abs(float(sample.mean()) - mean) < 5 * error + 1e-12


@given(order=orders, t=ratios | st.just(INF), scale=st.floats(0.01, 2))
def test_the_repr_is_the_identity(order, t, scale):
    for kernel in (optimal(order, t), on_nodes((0.3, 0.7), t), floored(3, min(scale, 0.5)), chebyshev(order)):
        for same in (kernel, kernels.rescaled(kernel, scale)):
            again = eval(repr(same), dict(vars(kernels)))
            assert again == same and hash(again) == hash(same)
        wanted = kernel.second_moment(1 / scale**2)
        assert kernels.rescaled(kernel, scale).second_moment(1.0) == pytest.approx(wanted, rel=1e-9)


def test_as_a_stencil():
    stencil = KernelStencil(optimal(3, 1.0))
    assert [stencil.moment(j) for j in (0, 1, 2, 3)] == pytest.approx([0, 1, 0, 0], abs=1e-15)
    value = stencil.slope_second_moment() + 2 * stencil.noise_second_moment()
    assert value == pytest.approx(least_second_moment(3, 1.0), rel=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: optimal(3, 0), r"infimum 1 of order 3 is not attained .* floored\(order, least\)"),
        (lambda: optimal(3, -1), "noise_to_gradient is -1: give t = d s"),
        (lambda: optimal(3, math.nan), "noise_to_gradient is nan"),
        (lambda: optimal(3, "1"), "noise_to_gradient is '1'"),
        (lambda: optimal(2, 1), "kernel order is 2: give an odd order"),
        (lambda: chebyshev(0), "kernel order is 0"),
        (lambda: floored(4, 0.1), "kernel order is 4"),
        (lambda: floored(3, 0.0), "least is 0.0: give the smallest"),
        (lambda: floored(3, 1.0), "least is 1.0"),
        (lambda: on_nodes(()), "distinct positive"),
        (lambda: on_nodes((0.5, 0.5)), "distinct positive"),
        (lambda: on_nodes((0.0, 0.5)), "distinct positive"),
        (lambda: least_second_moment(3, -0.1), "noise_to_gradient is -0.1"),
        (lambda: DiscreteKernel("w", (1.0,), (0.9,), (1.0,), 1), "are not a law"),
        (lambda: DiscreteKernel("w", (1.0,), (1.0,), (1.1,), 1), r"E\[r\^1 K\] is 1.1, not 1"),
        (lambda: DiscreteKernel("w", (1.0, 0.5), (0.5, 0.5), (1.0, 1.0), 1), "positive and ascending"),
        (lambda: DiscreteKernel("w", (1.0,), (0.5, 0.5), (1.0,), 1), "as many probabilities"),
        (lambda: DiscreteKernel("w", (1.0,), (1.0,), (1.0,), 3), r"E\[r\^3 K\] is 1, not 0"),
    ],
)
def test_bad_input_gets_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    assert optimal(1, 0).values == (1.0,)  # the one order whose optimum exists without noise
