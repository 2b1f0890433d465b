"""The smoke table of methods: a row a method and problem, continued, with nothing ranked."""

import json

import pytest

from synthetic import smoke
from synthetic.__main__ import main
from zobench import methods

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_named_method_lowers_the_loss_of_a_quadratic(tmp_path, capsys):
    words = ["smoke", "--methods", "mezo,fzoo,eggroll", "--problems", "quadratic", "--evaluations", "400"]
    words += ["--rates", "0.5,0.1,0.02,0.004", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    said = capsys.readouterr().out
    rows = rows_of(tmp_path / "run")
    assert [row["method"] for row in rows] == ["mezo", "fzoo", "eggroll"]
    assert all(row["loss"] < 0.6 * row["start_loss"] and row["status"] == "ok" for row in rows)
    assert "Rademacher x Forward x LossSpread x sgd" in said and "no ranking" in said
    assert main(words) == 0 and len(rows_of(tmp_path / "run")) == 3


def test_a_run_that_diverges_is_infinite_and_said():
    method = next(row for row in methods.table() if row.name == "mezo")
    problem = smoke.problems.make("quartic", smoke.DIM)
    start = smoke.problems.start(problem, 0)
    assert smoke.descend(method, problem, start, 1e300, smoke.SmokeOptions(evaluations=200)) == float("inf")
    row = {"kind": "smoke", **method.axes._asdict(), "method": "mezo", "problem": "quartic", "start_loss": 1.0}
    assert "diverged" in smoke.table([{**row, "loss": None}])  # as a file of rows keeps it


def test_an_unknown_method_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'mezo'"):
        smoke.run(smoke.SmokeOptions(methods=("mezzo",), out=str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "smoke"]
