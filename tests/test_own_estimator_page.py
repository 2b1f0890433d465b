"""The page docs/own-estimator.md: its code and its commands run, and find, prove and train what it says."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from own_page import blocks, defined
from walks import commands as indented

import llm.__main__
import zobench.__main__
from zobench.testing import CHECKS

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = (Path(__file__).parents[1] / "docs/own-estimator.md").read_text(encoding="utf-8")
MAINS = {"zobench": zobench.__main__.main, "llm": llm.__main__.main}


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    return defined(PAGE, __name__=__name__)


def test_both_mistakes_are_found_and_said_as_shown(names):
    for report, check in ((names["first"], "first-order"), (names["second"], "directions")):
        assert report.failed == [check]
        assert f"1 of {len(CHECKS)} checks failed" in PAGE
        (row,) = (row for row in report.rows if row.check == check)
        shown = PAGE.partition(f"- {check}: ")[2].partition("; ...")[0]
        assert row.found.startswith(" ".join(shown.split()).partition("found ")[2])


def test_the_repaired_estimator_is_proved(names):
    found = {row.check: row.found for row in names["held"].rows if row.status == "passed"}
    assert {"first-order", "quadratic", "bias-order", "directions"} <= set(found)
    assert "by enumeration of all outcomes" in found["first-order"] and "by enumeration" in found["quadratic"]
    biased = names["unexplained"] + names["predicted"] / names["sampled"].mean_error
    assert names["unexplained"].abs().max() < 5 < biased.abs().max()


def test_the_commands_run(tmp_path, monkeypatch):
    (module,) = (block for block in blocks(PAGE) if "class Staircase" in block)
    (tmp_path / "staircase.py").write_text(module)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    commands = [shlex.split(line) for line in indented(PAGE) if line.startswith("python -m ")]
    assert [words[2] for words in commands] == ["zobench", "llm"]
    for _, _, program, *words in commands:
        assert not MAINS[program](words)
    assert (tmp_path / "staircase-bias.pdf").stat().st_size > 1000
    assert '"status": "ok"' in (tmp_path / "runs/tiny/rows.jsonl").read_text()
    sys.modules.pop("staircase")
