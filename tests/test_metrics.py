"""Metrics against values worked out by hand."""

import math

import pytest
import torch

from llm.objective import metrics
from zobench.naming import UnknownNameError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_normalisation_drops_case_punctuation_articles_and_white_space_and_nothing_else():
    assert metrics.normalise("  The  Quick, brown\tfox's an A-team! ") == "quick brown foxs ateam"
    assert metrics.normalise("Theory another bathe") == "theory another bathe"  # "the" and "an" within words stay
    assert metrics.normalise("the a an . !") == ""


@pytest.mark.parametrize(
    ("prediction", "answers", "f1", "exact"),
    [
        ("the Denver Broncos!", ["Denver Broncos"], 1.0, 1.0),
        ("Denver", ["Denver Broncos"], 2 * 1 * 0.5 / 1.5, 0.0),
        ("in the city of Denver", ["Denver Broncos", "Denver city"], 2 * 2 / (4 + 2), 0.0),  # best of the answers
        ("to be or not to be", ["to be to"], 2 * 3 / (6 + 3), 0.0),  # to, be, to: repetition counts
        ("to", ["to to to"], 2 * 1 / (1 + 3), 0.0),
        ("Paris", ["London"], 0.0, 0.0),
        ("the", [""], 1.0, 1.0),
        ("Paris", ["the"], 0.0, 0.0),
        ("Paris", [], 0.0, 0.0),
    ],
)
def test_squad_and_record(prediction, answers, f1, exact):
    assert metrics.f1(prediction, answers) == pytest.approx(f1)
    assert metrics.exact_match(prediction, answers) == exact


@pytest.mark.parametrize(
    ("prediction", "answers", "f1", "exact"),
    [
        ("3", ["3.0"], 1.0, 1.0),  # numbers are compared as numbers
        ("3 yards", ["3"], 2 / 3, 0.0),  # 1 of 2 predicted, 1 of 1 right
        ("4 yards", ["3 yards"], 0.0, 0.0),  # the right number is missing: the common word does not count
        ("yards", ["3 yards"], 0.0, 0.0),
        ("3 4 yards", ["3 yards"], 2 * 2 / (3 + 2), 0.0),
        ("the well-known player", ["well known"], 2 * 2 / (3 + 2), 0.0),  # hyphens split
        ("go go go", ["go"], 1.0, 0.0),  # sets, not counts
        (["Brady", "Manning"], [["Manning", "Brady"]], 1.0, 1.0),
        ("Brady", [["Manning", "Brady"]], 0.5, 0.0),
        (["Tom Brady", "Manning"], [["Brady"]], (2 / 3) / 2, 0.0),
        # pairs by the greatest sum: red-{red blue} and {red blue}-blue, though {red blue} has an exact partner
        (["red", "red blue"], [["red blue", "blue"]], (2 / 3 + 2 / 3) / 2, 0.0),
        ("3", ["4", "3"], 1.0, 1.0),
    ],
)
def test_drop(prediction, answers, f1, exact):
    assert metrics.drop_f1(prediction, answers) == pytest.approx(f1)
    assert metrics.drop_exact_match(prediction, answers) == exact


def test_macro_f1_of_cb():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 0, 1, 1, 1, 1])
    # class 0: TP 3, FP 0, FN 1: 6/7; class 1: TP 2, FP 2, FN 0: 4/6; class 2: never predicted: 0
    assert metrics.macro_f1(predicted, labels) == pytest.approx((6 / 7 + 4 / 6 + 0) / 3)
    two = torch.tensor([0, 0, 1, 1])  # of three classes, one that does not occur
    assert metrics.macro_f1(two, two) == 1.0


def test_multirc_counts_right_answers_and_whole_questions():
    predicted, labels, questions = [1, 0, 1, 1, 0], [1, 0, 0, 1, 1], ["a", "a", "b", "b", "c"]
    found = metrics.multirc(predicted, labels, questions)
    assert found.f1a == pytest.approx(2 * 2 / (3 + 3)) and found.exact_match == pytest.approx(1 / 3)


def test_no_answer_is_nan_and_not_wrong():
    found = metrics.values("f1", ["Paris", None], [("Paris",), ("Paris",)])
    assert found[0] == 1 and math.isnan(found[1])


def test_unknown_metrics_are_named():
    with pytest.raises(UnknownNameError, match="Did you mean 'exact-match'"):
        metrics.values("exact_match", ["a"], [("a",)])
    assert metrics.together("drop-f1") == ("drop-f1", "drop-exact-match")


def test_one_of_several_right_numbers_lets_the_words_count():
    assert metrics.drop_f1("3 yards", ["3 4 yards"]) == pytest.approx(2 * 2 / (2 + 3))
    assert metrics.drop_f1("5 yards", ["3 4 yards"]) == 0.0


def test_macro_f1_counts_classes_that_are_only_predicted_or_only_right():
    never_right, never_predicted = torch.tensor([0, 1]), torch.tensor([0, 0])
    assert metrics.macro_f1(never_right, never_predicted) == pytest.approx((2 / 3 + 0) / 2)
    assert metrics.macro_f1(never_predicted, never_right) == pytest.approx((2 / 3 + 0) / 2)
