"""The figures of the report, from the committed rows: text beside text, within the frame, and free of placeholders."""

import re
from pathlib import Path

import matplotlib
import pytest
from figure_text import faults
from matplotlib.figure import Figure

from analysis.lead import lead
from analysis.rows import Results, read
from analysis.sections import finetuning, rounding
from zobench.figures import style

RESULTS = Path(__file__).parent.parent / "results"
PLACEHOLDER = re.compile(r"=\?|\bNone\b|\bnan\b", re.IGNORECASE)


@pytest.fixture(scope="module")
def results() -> Results:
    return read([RESULTS / name for name in ("bias", "kernels", "converge", "rounding", "spam")])


LABELLED = (lead, finetuning.section, rounding.section)  # tests/test_figures.py has the others


@pytest.mark.parametrize("section", LABELLED, ids=lambda made: made.__module__.rpartition(".")[2])
def test_text_in_figures_can_be_read(results: Results, section) -> None:
    made = lead(results, []) if section is lead else section(results)
    assert made.illustrations
    for shown in made.illustrations:
        with matplotlib.rc_context(style.RC):
            shown.figure.set_dpi(style.RC["savefig.dpi"])
            assert faults(shown.figure) == [], shown.stem
        words = [text.get_text() for text in shown.figure.findobj(matplotlib.text.Text)]
        assert not [word for word in words if PLACEHOLDER.search(word)], shown.stem
        assert not any("shipped" in word for word in words), shown.stem


def test_text_over_text_and_text_that_is_cut_are_found() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "one"), figure.text(0.51, 0.5, "another"), figure.text(0.99, 0.1, "beyond the frame")
    assert faults(figure) == ["cut: 'beyond the frame'", "'one' over 'another'"]
