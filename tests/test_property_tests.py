"""The page docs/property-tests.md: its code runs in one go, and its reports are what it says."""

from pathlib import Path
from typing import Any

import pytest
import torch
from own_page import TEXT, blocks, defined

from zobench.testing import CHECKS, check_estimator, check_law, check_rule

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = (Path(__file__).parents[1] / "docs/property-tests.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    return defined(PAGE, __name__=__name__)


def test_the_page_finds_the_factor_and_the_order(names):
    assert f"1 of {len(CHECKS)} checks failed" in PAGE
    shown = PAGE.partition("found E[g] = ")[2].partition("n = 500")[0]
    assert " ".join(shown.split()) in names["message"]
    assert names["report"].failed == ["first-order"]
    assert not names["passed"].failed and not names["held"].failed
    assert names["wrong_order"] == ["bias-order"]
    assert len(names["held"].with_status("measured")) < len(names["passed"].with_status("measured"))


def test_the_tests_of_the_page_run(names):
    names["test_central_differences_are_exact_on_quadratic_functions"]()
    (mark,) = names["test_estimators"].pytestmark
    assert len(mark.args[1]) == 3 * len(CHECKS)


def test_the_page_has_every_check():
    table = PAGE.partition("| check | needs declared |")[2].partition("\n\n")[0]
    missing = [check.name for check in CHECKS if check.name not in table]
    assert not missing


@pytest.fixture(scope="module")
def own() -> dict[str, Any]:
    torch.manual_seed(0)
    found: dict[str, Any] = {"__name__": __name__}
    for block in blocks(TEXT):
        exec(block, found)
    globals().update({name: found[name] for name in ("Mean", "Searching", "Baseline", "Searched", "BySpread")})
    return found


@pytest.mark.parametrize("name", ["Baseline", "Searched", "BySpread"])
def test_the_estimators_of_the_page_of_ones_own_pass(own, name):
    assert not check_estimator(own[name]).failed


@pytest.mark.exhaustive
def test_the_law_and_the_rule_of_the_page_of_ones_own_pass(own):
    assert not check_law(own["Cauchyish"]()).failed
    assert not check_rule(own["SignDescent"]).failed
