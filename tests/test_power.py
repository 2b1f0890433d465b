"""The power of a comparison, against simulated pairs and closed forms."""

import math

import numpy as np
import pytest
from scipy import stats

from llm.__main__ import main
from llm.studies.power import detectable, one_run, paired_power, seeds_needed


def rejected(difference, spread, seeds, level, pairs=40_000):
    """How often the paired t test rejects, and the standard error of that."""
    drawn = np.random.default_rng(1).normal(difference, spread, (pairs, seeds))
    share = float((stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < level).mean())
    return share, math.sqrt(share * (1 - share) / pairs)


@pytest.mark.parametrize(("difference", "seeds", "level"), [(2.9, 10, 0.05), (2.9, 5, 0.0125), (0.0, 10, 0.05)])
def test_the_power_is_how_often_the_test_rejects(difference, seeds, level):
    share, error = rejected(difference, 4.0, seeds, level)
    assert abs(paired_power(difference, 4.0, seeds, level) - share) < 5 * error
    assert abs(paired_power(difference, 4.0, seeds, 2 * level) - share) > 5 * error  # a one-sided test


def test_what_is_detected_has_the_power_that_was_wanted():
    least = detectable(4.0, 10, 0.05, 0.8)
    assert paired_power(least, 4.0, 10, 0.05) == pytest.approx(0.8, abs=1e-9)
    needed = seeds_needed(2.9, 6.7, 0.05, 0.8)
    assert paired_power(2.9, 6.7, needed, 0.05) >= 0.8 > paired_power(2.9, 6.7, needed - 1, 0.05)
    assert seeds_needed(1e-6, 1.0, 0.05, 0.8) is None


def test_two_runs_of_equal_quality_differ_by_the_noise_of_their_questions():
    drawn = np.random.default_rng(2).random((2, 20_000, 104)) < 0.63
    differences = drawn[0].mean(-1) - drawn[1].mean(-1)
    assert differences.std() == pytest.approx(one_run(2 * 0.63 * 0.37, 104), rel=0.03)


def test_the_command_says_what_a_difference_takes(capsys):
    assert main(["power", "--questions", "104", "--differences", "2.9", "--seeds", "3", "--tests", "2"]) == 0
    said = capsys.readouterr().out
    assert "80% power takes 44 seeds" in said
    assert "2.9 points = 3.0 questions; one run each shows that with 80% power on 4,351 questions" in said


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "give --spread or --questions"),
        (["--spread", "0"], "spread is 0.0: give a positive number"),
        (["--spread", "1", "--seeds", "1"], "seeds is 1: give 2 or more"),
        (["--questions", "104", "--accuracy", "63"], "accuracy is 63.0: give a share"),
        (["--spread", "1", "--differences", "0"], "give positive numbers of points"),
    ],
)
def test_what_makes_no_sense_is_refused(argv, message, capsys):
    with pytest.raises(SystemExit):
        main(["power", *argv])
    assert message in capsys.readouterr().err
