"""The arithmetic of the paired benchmark, and the worktree that it makes."""

import subprocess

import pytest
from paired_bench import checkout, quotient, ratio, table

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
