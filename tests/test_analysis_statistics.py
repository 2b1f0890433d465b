"""analysis: slopes of power laws, intervals and tests, each against SciPy or a closed form."""

import math

import numpy as np
import pandas as pd
import pytest
from fabricated import EPSILONS
from scipy import stats

from analysis.fits import power_law
from analysis.statistics import (
    against_chance,
    holm,
    paired,
    ratio_of_means,
    t_interval,
    t_proportion,
    two_proportions,
    wilson,
)

pytestmark = pytest.mark.environment


def frame(power: float, floor: float, used: tuple[float, ...] = EPSILONS) -> pd.DataFrame:
    epsilon = np.array(used)
    exact = epsilon**power
    return pd.DataFrame(
        {
            "epsilon": epsilon,
            "bias": np.hypot(exact, floor),
            "bias_error": np.maximum(1e-3 * exact, floor / 4),
        }
        | {"floor": max(floor, 1e-12), "predicted_bias": exact}
    )


@pytest.mark.parametrize("power", [2.0, 4.0])
def test_an_exact_power_law_is_recovered(power: float) -> None:
    law = power_law(frame(power, 0.0))
    assert law is not None
    assert law.used == law.points == len(EPSILONS)
    assert law.straight
    assert law.slope.estimate == pytest.approx(power, abs=1e-9)
    assert law.predicted == pytest.approx(power, abs=1e-9)
    assert law.slope.low < power < law.slope.high


def test_points_at_the_floor_are_left_out_and_would_have_bent_the_slope() -> None:
    rows = frame(4.0, 1e-4, tuple(np.geomspace(0.01, 1.0, 13)))
    law = power_law(rows)
    assert law is not None
    assert law.used < law.points
    assert law.slope.estimate == pytest.approx(4.0, abs=0.1)
    assert np.polyfit(np.log(rows["epsilon"]), np.log(rows["bias"]), 1)[0] < 3.0


def test_the_fit_stops_where_the_next_order_bends_the_curve() -> None:
    rows = frame(2.0, 0.0, tuple(np.geomspace(0.001, 1.0, 13)))
    bent = rows["epsilon"] ** 2 + 30 * rows["epsilon"] ** 4
    law = power_law(rows.assign(bias=bent, bias_error=1e-3 * bent, predicted_bias=bent))
    assert law is not None
    assert law.used < law.points
    assert law.slope.estimate == pytest.approx(2.0, abs=0.01)


def test_fewer_than_three_resolved_points_have_no_slope() -> None:
    assert power_law(frame(2.0, 0.05)) is None


def test_t_interval_agrees_with_scipy() -> None:
    values = [0.71, 0.74, 0.69, 0.73, 0.75]
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    interval = t_interval(values)
    assert interval == pytest.approx((np.mean(values), expected.low, expected.high), rel=1e-12)
    assert math.isnan(t_interval([0.7]).low)


def test_wilson_interval_solves_its_own_equation() -> None:
    accuracy, n, z = 0.62, 50, stats.norm.ppf(0.975)
    for bound in wilson(accuracy, n)[1:]:
        assert abs(accuracy - bound) == pytest.approx(z * math.sqrt(bound * (1 - bound) / n), rel=1e-9)


def test_paired_agrees_with_scipy_and_claims_nothing_without_variation() -> None:
    first, second = [0.70, 0.73, 0.71, 0.76], [0.68, 0.72, 0.66, 0.71]
    result = paired(first, second)
    assert result.p == pytest.approx(stats.ttest_rel(first, second).pvalue, rel=1e-12)
    assert result.pairs == 4
    assert math.isnan(paired([0.5, 0.6], [0.4, 0.5]).p)
    assert math.isnan(paired([0.5], [0.4]).p)


def test_tests_over_examples_and_holm() -> None:
    assert against_chance(0.6, 0.5, 100).p == pytest.approx(stats.binomtest(60, 100, 0.5).pvalue)
    newcombe = two_proportions(0.56, 0.48, 100).difference
    assert newcombe.low < 0 < newcombe.high
    adjusted = holm([0.01, math.nan, 0.04, 0.03])
    assert adjusted[0] == pytest.approx(0.03)
    assert adjusted[2:] == pytest.approx([0.06, 0.06])
    assert math.isnan(adjusted[1])


def test_newcombes_interval_in_closed_form() -> None:
    """Method 10 of Newcombe 1998: the bounds of the two proportions are far from symmetric near 1."""
    n, z = 25, float(stats.norm.ppf(0.975))

    def score(p: float) -> tuple[float, float]:
        centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)

    first, second = 0.96, 0.6
    (l1, u1), (l2, u2) = score(first), score(second)
    found = two_proportions(first, second, n)
    assert found.difference.estimate == pytest.approx(0.36)
    assert found.difference.low == pytest.approx(0.36 - math.sqrt((first - l1) ** 2 + (u2 - second) ** 2), rel=1e-9)
    assert found.difference.high == pytest.approx(0.36 + math.sqrt((u1 - first) ** 2 + (second - l2) ** 2), rel=1e-9)
    pooled = math.sqrt(2 * 0.78 * 0.22 / n)
    assert found.p == pytest.approx(2 * stats.norm.sf(0.36 / pooled), rel=1e-9)


def test_repeats_of_a_point_sharpen_the_slope_by_the_square_root_of_their_number() -> None:
    """Slope ± z sigma / sqrt(sum (x - mean)^2), sigma the relative error of the mean of 4 repeats."""
    one = frame(2.0, 0.0).assign(bias_error=lambda rows: 0.02 * rows.bias)
    x = np.log(EPSILONS)
    for repeats in (1, 4):
        law = power_law(pd.concat([one] * repeats))
        assert law is not None and law.points == len(EPSILONS)
        half = stats.norm.ppf(0.975) * 0.02 / math.sqrt(repeats) / math.sqrt(((x - x.mean()) ** 2).sum())
        assert law.slope.high - law.slope.estimate == pytest.approx(half, rel=1e-9)
        assert law.slope.estimate - law.slope.low == pytest.approx(half, rel=1e-9)


def test_the_range_of_a_fit_is_that_of_its_points() -> None:
    law = power_law(frame(2.0, 0.0))
    assert law is not None and (law.low, law.high) == (min(EPSILONS), max(EPSILONS))
    epsilon = np.geomspace(0.001, 1.0, 13)
    bent = epsilon**2 + 30 * epsilon**4
    law = power_law(frame(2.0, 0.0, tuple(epsilon)).assign(bias=bent, bias_error=1e-3 * bent, predicted_bias=bent))
    assert law is not None and law.low == epsilon[0] and law.high == epsilon[law.used - 1]


def test_a_bend_of_three_points_widens_the_interval_by_its_chi_square() -> None:
    """Logs 0, 0 and 3 s at x = 0, 1, 2: slope 3 s / 2, residuals s / 2, -s, s / 2, chi-square 3 / 2 times (s / e)^2."""
    s, error = 0.2, 0.04
    bias = np.exp([0.0, 0.0, 3 * s])
    law = power_law(
        pd.DataFrame(
            {"epsilon": np.exp([0.0, 1.0, 2.0]), "bias": bias, "bias_error": error * bias, "floor": 1e-9}
        ).assign(predicted_bias=bias)
    )
    assert law is not None and not law.straight and law.used == 3
    assert law.slope.estimate == pytest.approx(1.5 * s)
    half = stats.norm.ppf(0.975) * error / math.sqrt(2) * math.sqrt(1.5 * (s / error) ** 2)
    assert law.slope.high - law.slope.estimate == pytest.approx(half, rel=1e-9)


def test_points_need_three_floors() -> None:
    rows = frame(0.5, 0.0, (0.01, 0.02, 0.04)).assign(bias_error=1e-4)
    assert power_law(rows.assign(floor=rows.bias / 3.01)) is not None
    assert power_law(rows.assign(floor=rows.bias / 2.99)) is None


def test_what_no_observation_says_is_nan() -> None:
    assert all(map(math.isnan, t_interval([])))
    assert paired([], []).pairs == 0 and math.isnan(paired([], []).p)
    assert math.isnan(two_proportions(1.0, 1.0, 20).p) and two_proportions(1.0, 1.0, 20).difference.estimate == 0
    assert t_proportion([0.9, 1.0]).high == 1.0 and t_proportion([0.0, 0.1]).low == 0.0
    assert t_proportion([0.5]).estimate == 0.5 and math.isnan(t_proportion([0.5]).high)


def test_chance_is_taken_from_the_estimate_and_its_interval() -> None:
    found, plain = against_chance(0.6, 0.5, 100), wilson(0.6, 100)
    assert found.difference == pytest.approx([bound - 0.5 for bound in plain]) and found.pairs == 1


def test_a_ratio_of_means_has_the_interval_of_its_logarithm() -> None:
    first, second = np.array([2.0, 3.0, 4.0]), np.array([1.0, 2.0, 1.5])
    spread = (first / 3 - second / 1.5).std(ddof=1)
    half = stats.t.ppf(0.975, 2) * spread / math.sqrt(3)
    assert ratio_of_means(first, second) == pytest.approx([2.0, 2 * math.exp(-half), 2 * math.exp(half)], rel=1e-12)
    for one, two in ([], []), ([0.0], [1.0]), ([1.0], [0.0]), ([1.0], [-1.0]):
        assert all(map(math.isnan, ratio_of_means(one, two)))


def test_holm_never_falls_nor_passes_one() -> None:
    assert holm([0.5, 0.01, 0.9, 0.02]) == pytest.approx([1.0, 0.04, 1.0, 0.06])
    assert holm([0.02, 0.02, 0.03]) == pytest.approx([0.06, 0.06, 0.06])
