"""The arithmetic of the paired benchmark, and the worktree that it makes."""

import json
import subprocess
from pathlib import Path

import pytest
from paired_bench import MARK, checkout, filled, main, measured, quotient, ratio, table

ROWS = [
    {
        "side": side,
        "pair": pair,
        "size": "tiny",
        "engine": "plain",
        "law": "gaussian",
        "wall": [[step, 2.0], [step, 2.0], [90.0, 2.0]],
        "processor": [[step, 4.0]] * 3,
        "environment": {"commit": f"{side}-commit"},
    }
    for pair in range(3)
    for side, step in (("old", 4.0), ("new", 5.0))
]


def test_a_ratio_is_of_medians_so_that_one_slow_step_changes_nothing():
    assert ratio(ROWS[0], "wall") == 2.0
    assert ratio(ROWS[0], "processor") == 1.0


def test_the_quotient_is_a_geometric_mean_with_students_interval():
    by, low, high = quotient([1.0, 2.0], [2.0, 2.0])
    assert by == pytest.approx(2**0.5)
    assert high / by == pytest.approx(by / low) == pytest.approx(2.0 ** (12.7062 / 2), rel=1e-4)  # t of 1 degree
    assert quotient([3.0], [3.0]) == (1.0, 0.0, float("inf"))


def test_the_table_names_both_commits_and_the_quotient_of_each_clock():
    lines = table(ROWS).splitlines()
    assert lines[:2] == ["old: old-commit", "new: new-commit"]
    assert lines[3].split() == ["tiny,", "plain,", "gaussian", "wall", "2.00", "2.50", "1.250", "1.250", "to", "1.250"]
    assert lines[4].split() == [
        "tiny,",
        "plain,",
        "gaussian",
        "processor",
        "1.00",
        "1.25",
        "1.250",
        "1.250",
        "to",
        "1.250",
    ]


def sweeps(commit="new-commit", entries=6e6):
    told = {"size": "sweep", "engine": "step", "law": "gaussian", "entries": entries}
    rows = [{**row, **told, "kind": "paired-bench", "environment": dict(row["environment"])} for row in ROWS]
    for row in rows:
        if row["side"] == "new":
            row["environment"]["commit"] = commit
    return rows


def test_a_page_has_the_table_of_the_latest_sweeps_between_its_marks(tmp_path, capsys, monkeypatch):
    page, marks = "before\n{}after {}\n", f"{MARK}\nold text\n{MARK}"
    rows = [*sweeps("first", 1.0), *sweeps("second"), *ROWS]
    written = filled(page.format("", marks), rows)
    assert "| normals, step | 2 | 1 | 0.80 (0.80 to 0.80) |" in written and "old text" not in written
    assert "`old-com`; new: `second`; 3 processes of each" in written and written.startswith("before\nafter ")
    assert filled(written, rows) == written
    for text, kept in ((page, rows), (written, ROWS)):
        with pytest.raises(ValueError, match="two marks"):
            filled(text, kept)
    (tmp_path / "page.md").write_text(written)
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in [{"kind": "other"}, *sweeps("third")])
    )
    monkeypatch.setattr("sys.argv", ["paired_bench", "--out", str(tmp_path), "--page", str(tmp_path / "page.md")])
    assert main() == 0 and "new: third" in capsys.readouterr().out
    assert "new: `third`" in (tmp_path / "page.md").read_text()


def test_sweeps_are_steps_and_perturbed_copies_of_each_law(monkeypatch):
    monkeypatch.setattr("paired_bench.SWEPT", (30, 40))
    rows = measured(Path(__file__).parents[1], "sweep", 2)
    assert [(row["law"], row["engine"], row["entries"]) for row in rows] == [
        (law, engine, entries)
        for law in ("gaussian", "rademacher")
        for engine, entries in (("step", 1200), ("perturbed copy", 2400))
    ]
    assert all(len(row["processor"]) == len(row["wall"]) == 2 for row in rows)


def test_the_worktree_is_of_the_commit_and_gone_afterwards(tmp_path):
    def git(*arguments):
        own = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.example", *arguments]
        return subprocess.run(own, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    for text in ("first", "second"):
        (tmp_path / "file").write_text(text)
        git("add", "file")
        git("commit", "-q", "-m", text)
    with pytest.raises(RuntimeError), checkout("HEAD~1", tmp_path) as folder:
        assert (folder / "file").read_text() == "first"
        raise RuntimeError
    assert not folder.exists()
    assert len(git("worktree", "list").splitlines()) == 1
