"""The smoke table of methods on a language model: a row a method, continued, with nothing ranked."""

import json

import pytest

from docs.site import fill
from llm.__main__ import main
from llm.studies import smoke
from zobench import methods
from zobench.naming import UnknownNameError

pytestmark = pytest.mark.usefixtures("one_thread")
QUICK = ["--steps", "2", "--train", "8", "--dev", "4", "--max-tokens", "16"]


def rows_of(folder):
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


def test_a_row_a_method_which_is_continued(tmp_path, capsys):
    words = ["smoke", "--methods", "spall,hybrid", *QUICK, "--out", str(tmp_path)]
    assert main(words) == 0
    rows = [row for row in rows_of(tmp_path) if row["kind"] == smoke.KIND]
    assert [(row["method"], row["lr"], row["forward_passes"]) for row in rows] == [
        ("spall", 3e-3, 4),
        ("hybrid", 3e-4, 6),
    ]
    assert rows[0]["memory"] == "2 numbers" and rows[1]["backward_passes"] == 2
    assert all(row["start_loss"] == rows[0]["start_loss"] != row["dev_loss"] for row in rows)
    assert "Rademacher x SPSA x Identity x sgd" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
    assert main(words) == 0 and len(rows_of(tmp_path)) == len(rows)


def test_a_method_that_fails_is_a_row_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(smoke, "train", lambda options: 1 / 0)
    smoke.run(smoke.SmokeOptions(methods=("mezo",), steps=2, out=str(tmp_path)))
    (row,) = rows_of(tmp_path)
    assert row["status"] == "failed" and "ZeroDivisionError" in row["reason"]
    assert "failed: ZeroDivisionError" in smoke.markdown([row])


def test_what_is_unknown_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="Did you mean 'mezo'"):
        smoke.run(smoke.SmokeOptions(methods=("mezzo",), out=str(tmp_path / "none")))
    with pytest.raises(ValueError, match="steps is 0"):
        smoke.run(smoke.SmokeOptions(steps=0, out=str(tmp_path / "none")))
    assert not (tmp_path / "none").exists()


def test_the_page_shows_the_rows_and_names_every_method_of_them():
    page = (fill.ROOT / "docs/smoke.md").read_text(encoding="utf-8")
    assert fill.filled(page) == page, "python -m docs.site.fill writes the tables into docs/smoke.md"
    known = {row.name for row in methods.table()} | {smoke.HYBRID}
    shown = {row["method"] for row in rows_of(fill.ROOT / "results/smoke-llm") if row["kind"] == smoke.KIND}
    assert shown <= known and set(smoke.RATES) <= known
