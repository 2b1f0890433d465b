"""The choice of a learning rate: the least dev loss, kept as a row, and told where it lies at an edge."""

import math

import pytest

from llm.studies.rates import chosen_rate, edge
from zobench.run.records import Run

LOSSES = {1e-5: 0.9, 1e-4: 0.5, 1e-3: 0.7, 1e-2: math.inf}


@pytest.mark.parametrize(
    ("rates", "best", "told"),
    [
        ((1e-3, 1e-5, 1e-4), 1e-4, ""),
        ((1e-4, 1e-3, 1e-2), 1e-4, "mezo: the best learning rate, 0.0001, is the smallest tried."),
        ((1e-5, 1e-4), 1e-4, "mezo: the best learning rate, 0.0001, is the largest tried."),
        ((1e-3, 1e-3), 1e-3, "mezo: only one learning rate was tried, 0.001."),
    ],
)
def test_a_choice_at_an_edge_is_told_each_time(tmp_path, capsys, rates, best, told):
    record = Run(str(tmp_path), {"command": "study"})
    for _ in range(2):
        assert chosen_rate(record, "mezo", rates, LOSSES.__getitem__) == best
        said = capsys.readouterr().err
        assert told in said and ("give more learning rates" in said) == bool(told)
    (row,) = record.find(kind="chosen")
    assert (row["lr"], row["rates"]) == (best, list(rates))


def test_a_choice_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"mezo diverged at every learning rate of \(0\.01,\): give smaller"):
        chosen_rate(Run(str(tmp_path), {"command": "study"}), "mezo", (1e-2,), LOSSES.__getitem__)
    assert edge(1.0, (0.1, 1.0, 10.0)) == ""
