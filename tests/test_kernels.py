"""Polynomial kernels: exact moments against an independent computation, and refusal of wrong constants."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from zobench.kernels import PolynomialKernel, kerzoo5_as_printed, legendre, optimal, rescaled, shrunk

pytestmark = pytest.mark.usefixtures("one_thread")

ORDERS = (1, 3, 5, 7)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
TABLE = {  # E[rK], E[r^3 K], E[r^5 K], E[r^2 K^2], E[K^2]: facts/kerzoo.md
    1: (1, 3 / 5, 3 / 7, 9 / 5, 3),
    3: (1, 0, -5 / 21, 25 / 4, 75 / 4),
    5: (1, 0, 0, 13.2512, 57.4219),
}
CLOSED = {
    1: [0, 3],
    3: [0, Fraction(75, 4), 0, Fraction(-105, 4)],
    5: [0, Fraction(3675, 64), 0, Fraction(-13230, 64), 0, Fraction(10395, 64)],
}


def by_moment_conditions(order: int) -> list[Fraction]:
    """The odd polynomial of degree `order` with E[rK] = 1, E[r^jK] = 0, by elimination: no Legendre polynomials."""
    odd = range(1, order + 1, 2)
    rows = [[Fraction(1, i + j + 1) for i in odd] + [Fraction(int(j == 1))] for j in odd]
    for pivot in range(len(rows)):
        rows[pivot] = [entry / rows[pivot][pivot] for entry in rows[pivot]]
        for other in range(len(rows)):
            if other != pivot:
                factor = rows[other][pivot]
                rows[other] = [a - factor * b for a, b in zip(rows[other], rows[pivot], strict=True)]
    coefficients = [Fraction(0)] * (order + 1)
    for i, row in zip(odd, rows, strict=True):
        coefficients[i] = row[-1]
    return coefficients


def exact_mean(coefficients: list[Fraction], power: int, squared: bool = False) -> Fraction:
    """E[r^power K] or E[r^power K^2] under Uniform[-1, 1], in rational arithmetic."""
    pairs = enumerate(coefficients)
    if squared:
        pairs = ((i + j, a * b) for i, a in enumerate(coefficients) for j, b in enumerate(coefficients))
    return sum((c / (i + power + 1) for i, c in pairs if (i + power) % 2 == 0), Fraction(0))


def by_quadrature(values: np.ndarray) -> float:
    return float(WEIGHTS @ values) / 2


@pytest.mark.parametrize("order", ORDERS)
def test_coefficients_are_the_solution_of_the_moment_conditions(order):
    wanted = [float(c) for c in by_moment_conditions(order)]
    assert legendre(order).coefficients == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("order", sorted(CLOSED))
def test_closed_forms(order):
    assert legendre(order).coefficients == tuple(float(c) for c in CLOSED[order])


@pytest.mark.parametrize("order", sorted(TABLE))
def test_published_table(order):
    kernel = legendre(order)
    ours = [kernel.moment(1), kernel.moment(3), kernel.moment(5), kernel.second_moment()]
    ours.append(kernel.second_moment(1.0) - kernel.second_moment(0.0))
    assert ours == pytest.approx(list(TABLE[order]), rel=5e-6, abs=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("constant", [1.0, 4.0, -0.25])
def test_moments_against_rational_arithmetic_and_quadrature(order, constant):
    kernel, exact = legendre(order, constant), by_moment_conditions(order)
    values = np.polynomial.polynomial.polyval(NODES, [constant * float(c) for c in exact])
    for j in range(10):
        assert kernel.moment(j) == pytest.approx(constant * float(exact_mean(exact, j)), abs=1e-11)
        assert kernel.moment(j) == pytest.approx(by_quadrature(NODES**j * values), abs=1e-11)
    for t in (0.0, 0.1, 10.0):
        rational = exact_mean(exact, 2, squared=True) + Fraction(t) * exact_mean(exact, 0, squared=True)
        assert kernel.second_moment(t) == pytest.approx(constant**2 * float(rational), rel=1e-11)
        assert kernel.second_moment(t) == pytest.approx(by_quadrature((NODES**2 + t) * values**2), rel=1e-11)


def test_the_second_moment_of_order_seven():
    assert legendre(7).second_moment(1.0) - legendre(7).second_moment() == pytest.approx(129.2, abs=0.05)


@given(
    order=st.sampled_from(ORDERS),
    constant=st.floats(-8, 8).filter(lambda c: abs(c) > 1e-3),
    polynomial=st.lists(st.floats(-10, 10), min_size=1, max_size=8),
)
def test_a_kernel_reproduces_the_derivative_at_zero(order, constant, polynomial):
    polynomial = polynomial[: order + 1]
    values = legendre(order, constant)(torch.from_numpy(NODES)).numpy()
    wanted = constant * polynomial[1] if len(polynomial) > 1 else 0.0
    mean = by_quadrature(values * np.polynomial.polynomial.polyval(NODES, polynomial))
    assert mean == pytest.approx(wanted, abs=1e-10 * (1 + abs(constant)) * 100)


@pytest.mark.parametrize("order", ORDERS)
def test_the_next_odd_moment_is_not_removed(order):
    assert abs(legendre(order).moment(order + 2)) > 1e-2


def test_the_misprint_has_constant_thirteen_sevenths():
    printed = kerzoo5_as_printed()
    assert printed.moment(1) == pytest.approx(13 / 7, abs=1e-12)
    assert legendre(5).moment(1) == pytest.approx(1.0, abs=1e-12)
    assert printed.moment(3) == pytest.approx(0.0, abs=1e-12)
    assert printed.moment(5) == pytest.approx(0.0, abs=1e-12)
    r = torch.linspace(-1, 1, 9, dtype=torch.float64)
    assert torch.allclose(printed(r), 13 / 7 * legendre(5)(r), rtol=1e-13, atol=0)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("factor", [0.98, 1.02, 13 / 7, -1.0, 0.0])
def test_a_constant_that_is_off_is_refused(order, factor):
    wrong = tuple(factor * c if c else 0.0 for c in legendre(order).coefficients)
    with pytest.raises(ValueError, match=r"E\[r\^1 K\] is"):
        PolynomialKernel("wrong", wrong, order)
    assert repr(PolynomialKernel("let through", wrong, order, checked=False)) == "let through"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_coefficients_that_are_not_finite_are_refused(bad):
    for checked in (True, False):
        with pytest.raises(ValueError, match="finite odd polynomial"):
            PolynomialKernel("wrong", (0.0, bad), 1, checked=checked)
    with pytest.raises(ValueError, match="constant is"):
        legendre(3, bad)


@given(order=st.sampled_from(ORDERS[1:]), place=st.integers(0, 3), change=st.floats(-1, 1))
def test_a_single_coefficient_that_is_off_is_refused(order, place, change):
    assume(abs(change) > 1e-5)
    coefficients = list(legendre(order).coefficients)
    coefficients[min(2 * place + 1, order)] += change
    with pytest.raises(ValueError, match="kernel wrong"):
        PolynomialKernel("wrong", tuple(coefficients), order)


def test_the_condition_on_the_slope_is_checked_at_every_order():
    with pytest.raises(ValueError, match=r"E\[r\^1 K\]|order"):
        PolynomialKernel("order 0, E[rK] = 1/3", (0.0, 1.0), order=0)


def test_a_kernel_that_is_not_odd_is_refused():
    with pytest.raises(ValueError, match="odd polynomial"):
        PolynomialKernel("even", (1.0, 3.0), 1)


@pytest.mark.parametrize("order", [0, 2, 4, -1, -3, 2.5, "3", float("nan")])
def test_orders_that_are_not_odd_and_positive_are_refused(order):
    with pytest.raises(ValueError, match=r"order|integer"):
        legendre(order)


def test_a_whole_float_order_is_taken_or_refused_with_a_sentence():
    try:
        assert legendre(3.0) == legendre(3)
    except ValueError as error:
        assert "order" in str(error)


def test_reprs_tell_kernels_apart():
    kernels = [legendre(1), legendre(3), legendre(3, 4.0), legendre(5), kerzoo5_as_printed(), kerzoo5_as_printed(2.0)]
    kernels += [scale(kernel, s) for scale in (rescaled, shrunk) for kernel in kernels for s in (0.25, 0.7)]
    kernels.append(rescaled(shrunk(legendre(3, 4.0), 0.3), 0.7))
    assert len({repr(kernel) for kernel in kernels}) == len(kernels)
    names = {"legendre": legendre, "kerzoo5_as_printed": kerzoo5_as_printed, "rescaled": rescaled, "shrunk": shrunk}
    for kernel in kernels:
        assert eval(repr(kernel), names) == kernel


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("degree", [0, 1, 5, 12])
def test_quadrature_is_exact_where_it_says_so(order, degree):
    kernel, exact = legendre(order), by_moment_conditions(order)
    rule = kernel.quadrature(degree)
    for i in range(degree + 1):
        powers = rule.probabilities * rule.nodes**i
        assert float(powers.sum()) == pytest.approx(0 if i % 2 else 1 / (i + 1), abs=1e-13)
        assert float(powers @ rule.values) == pytest.approx(float(exact_mean(exact, i)), abs=1e-11)
        assert float(powers @ rule.values**2) == pytest.approx(float(exact_mean(exact, i, squared=True)), abs=1e-10)


def z_scores(r: torch.Tensor, k: torch.Tensor, kernel: PolynomialKernel) -> list[float]:
    claims = [(r, 0), (r**2, 1 / 3), (r**4, 1 / 5), (r * k, kernel.moment(1)), (r**3 * k, kernel.moment(3))]
    claims += [(r**2 * k**2, kernel.second_moment()), (k, 0)]
    return [float((sample.mean() - mean) / (sample.std() / len(sample) ** 0.5)) for sample, mean in claims]


@pytest.mark.parametrize("order", [1, 3, 5])
def test_drawn_nodes_have_the_moments(order):
    kernel = legendre(order)
    r, k = kernel.draw(20250518 + order, (2_000_000,))
    assert float(r.abs().max()) <= 1.0
    assert max(map(abs, z_scores(r, k, kernel))) < 5
    assert max(map(abs, z_scores(r, 1.02 * k, kernel))) > 5  # planted: the constant 2 % off
    assert max(map(abs, z_scores(0.99 * r, kernel(0.99 * r), kernel))) > 5  # planted: r on [-.99, .99]


def test_a_shorter_draw_is_a_prefix():
    long, _ = legendre(3).draw(7, (100, 3))
    short, _ = legendre(3).draw(7, (10, 3))
    assert torch.equal(long[:10], short)


HIGH = (9, 15, 21, 31)


@pytest.mark.parametrize("order", HIGH)
def test_high_orders_are_exact(order):
    """Coefficients and moments as rationals; values against rational evaluation."""
    kernel, exact = legendre(order), by_moment_conditions(order)
    assert list(kernel.coefficients) == exact
    assert [kernel.moment(j) for j in range(1, order + 1, 2)] == [1.0] + [0.0] * ((order - 1) // 2)
    assert kernel.second_moment() == float(exact_mean(exact, 2, squared=True))
    scale = float(exact_mean(exact, 0, squared=True)) ** 0.5
    points = np.linspace(-1, 1, 41)
    wanted = [float(sum(c * Fraction(r) ** i for i, c in enumerate(exact))) for r in points]
    assert kernel(torch.from_numpy(points)).numpy() == pytest.approx(wanted, abs=2e-14 * scale)
    rule = kernel.quadrature(0)
    assert float(rule.probabilities @ rule.values**2) == pytest.approx(scale**2, rel=1e-13)
    assert kernel.draw(3, (5,))[1].shape == (5,)


def test_horners_rule_would_not_do_at_high_order():
    """The planted twin: the same coefficients by Horner's rule are wrong in the sixth digit."""
    kernel = legendre(31)
    points = np.linspace(-1, 1, 41)
    horner = np.polynomial.polynomial.polyval(points, [float(c) for c in kernel.coefficients])
    assert np.abs(kernel(torch.from_numpy(points)).numpy() - horner).max() > 1e-7 * 7280**0.5


def test_the_second_moment_of_legendre_kernels_grows_as_the_cube_of_the_order():
    noise = [legendre(q).second_moment(1.0) - legendre(q).second_moment() for q in (15, 31)]
    assert 2.8 < np.log(noise[1] / noise[0]) / np.log(31 / 15) < 3.0


SCALES = (1e-4, 0.1, 0.5, 0.77, 1.0)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("order", [1, 3, 5, 31])
def test_a_rescaled_kernel_is_the_kernel_at_another_epsilon(order, scale):
    kernel, wide = rescaled(legendre(order, 4.0), scale), legendre(order, 4.0)
    for j in range(1, order + 4, 2):
        assert kernel.moment(j) == pytest.approx(scale ** (j - 1) * wide.moment(j), rel=1e-14, abs=1e-300)
    assert kernel.moment(1) == 4.0 and all(kernel.moment(j) == 0.0 for j in range(3, order + 1, 2))
    for t in (0.0, 2.0):
        assert kernel.second_moment(t) == pytest.approx(wide.second_moment(t / scale**2), rel=1e-14)
    for (r, value), (s, other) in [
        (kernel.draw(5, (9,)), wide.draw(5, (9,))),
        (kernel.quadrature(3)[1:], wide.quadrature(3)[1:]),
    ]:
        assert torch.allclose(r, scale * s, rtol=1e-15, atol=0)
        assert torch.allclose(value, other / scale, rtol=1e-9, atol=1e-12 / scale)


M = {1.0: 4.0, (25 / 42) ** 0.5: 625 / 84, 0.5: 4.94, 0.25: 1.48, 0.1: 0.25}  # facts/kerzoo.md, C = 4


@pytest.mark.parametrize("scale", M)
def test_the_mean_step_under_a_shrinking_interval(scale):
    kernel = shrunk(legendre(3, 4.0), scale)
    assert kernel.moment(1) == pytest.approx(15 * (5 * scale**2 / 3 - 7 * scale**4 / 5), rel=1e-13)
    assert kernel.moment(1) == pytest.approx(M[scale], abs=5e-3)
    if scale != 1.0:
        assert rescaled(legendre(3, 4.0), scale).moment(1) != pytest.approx(M[scale], abs=5e-3)  # planted


def test_the_largest_mean_step_is_at_the_root_of_25_42():
    moments = [shrunk(legendre(3, 4.0), s / 1000).moment(1) for s in range(700, 850)]
    assert 700 + int(np.argmax(moments)) == round(1000 * (25 / 42) ** 0.5) == 772
    assert 0 < 625 / 84 - max(moments) < 2e-5


@pytest.mark.parametrize(("scale", "ratio"), [(1.0, 0.0), (0.9, 0.289), (0.7, 0.255), (0.5, 0.142)])
def test_a_shrinking_interval_undoes_the_cancellation(scale, ratio):
    kernel = shrunk(legendre(3), scale)
    assert kernel.moment(3) / kernel.moment(1) == pytest.approx(ratio, abs=5e-4)
    assert abs(rescaled(legendre(3), scale).moment(3)) < 1e-15


@pytest.mark.parametrize(("scale", "ratio"), [(1.0, 6.25), (0.77, 1.41), (0.5, 1.64), (1e-3, 1.8)])
def test_the_second_moment_under_a_shrinking_interval(scale, ratio):
    kernel = shrunk(legendre(3, 4.0), scale)
    assert kernel.second_moment() / kernel.moment(1) ** 2 == pytest.approx(ratio, abs=5e-3)
    r, value = kernel.draw(8, (400_000,))
    assert float(r.abs().max()) <= scale and torch.equal(value, legendre(3, 4.0)(r))
    sample = (r * value) ** 2
    error = float(sample.std()) / len(sample) ** 0.5
    assert abs(float(sample.mean()) - kernel.second_moment()) < 5 * error
    assert abs(float(sample.mean()) - 1.05 * kernel.second_moment()) > 5 * error  # planted


@pytest.mark.parametrize("scale", [0.0, -0.5, float("nan"), float("inf"), "half"])
def test_scales_out_of_range(scale):
    for change in (rescaled, shrunk):
        with pytest.raises(ValueError, match="scale is"):
            change(legendre(3), scale)
    with pytest.raises(ValueError, match="scale is"):
        PolynomialKernel("wrong", (0.0, 3.0), 1, reach=scale)


def test_a_kernel_without_values_elsewhere_cannot_be_shrunk():
    with pytest.raises(ValueError, match="only a polynomial kernel"):
        shrunk(optimal(3, 1.0), 0.5)


def test_the_conditions_are_checked_on_the_kernels_own_interval():
    small = rescaled(legendre(3), 0.25)
    with pytest.raises(ValueError, match=r"E\[r\^1 K\]"):
        PolynomialKernel("wrong", legendre(3).coefficients, 3, reach=0.25)
    wrong = tuple(c * (1 + 1e-6 * (i == 3)) for i, c in enumerate(small.coefficients))
    with pytest.raises(ValueError, match=r"E\[r\^[13] K\]"):
        PolynomialKernel("wrong", wrong, 3, reach=0.25)
