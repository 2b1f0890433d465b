"""analysis: what is read of run folders, and what is refused or left out with a warning."""

import json
from pathlib import Path

import pytest
from fabricated import EPSILONS, bias_rows, every_kind, folder

from analysis.rows import ReadError, read

pytestmark = pytest.mark.environment


def test_a_torn_last_line_is_dropped_with_a_warning(tmp_path: Path) -> None:
    results = read([folder(tmp_path / "torn", bias_rows("mezo", 2), '{"kind": "bias", "met')])
    assert len(results.of("bias")) == 2 * len(EPSILONS)
    assert any("rows.jsonl:11: dropped the last line" in warning for warning in results.warnings)


@pytest.mark.parametrize("broken", ['{"kind": "bi', "[1, 2]", '{"no": "kind"}'])
def test_a_broken_line_in_the_middle_is_an_error_with_file_and_line(tmp_path: Path, broken: str) -> None:
    rows = bias_rows("mezo", 2)
    path = folder(tmp_path / "broken", rows[:1], broken + "\n" + json.dumps(rows[1]) + "\n")
    with pytest.raises(ReadError, match=r"broken/rows\.jsonl:2: .* correct or remove the line"):
        read([path])


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    row = {key: value for key, value in bias_rows("mezo", 2)[0].items() if key != "epsilon"}
    with pytest.raises(ReadError, match=r"rows\.jsonl:1: a row of kind 'bias' lacks 'epsilon'"):
        read([folder(tmp_path / "short", [row])])


def test_text_where_a_number_belongs_is_named(tmp_path: Path) -> None:
    row = bias_rows("mezo", 2)[0] | {"epsilon": "large"}
    with pytest.raises(ReadError, match=r"kind 'bias'.*'epsilon'.*'large'"):
        read([folder(tmp_path / "wrong", [row])])


def test_missing_folders_and_folders_without_rows_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"no folder .*nowhere"):
        read([tmp_path / "nowhere"])
    with pytest.raises(ReadError, match=r"no rows\.jsonl in .*python -m synthetic bias"):
        read([tmp_path])


def test_a_parent_gives_each_run_once_and_unknown_kinds_are_noted(tmp_path: Path) -> None:
    runs = every_kind(tmp_path / "runs")
    folder(runs / "speed", [{"kind": "speed"}] * 2)
    results = read([runs, runs / "bias"])
    assert sorted(run.name for run in results.runs)[:4] == ["bias", "converge", "kernels", "kerzoo-0-0.001"]
    assert len(results.runs) == 10
    assert any("ignored 2 rows of kind 'speed'" in warning for warning in results.warnings)


def test_journal_rows_take_their_identity_from_the_runs_other_rows(tmp_path):
    name = {"model": "m", "task": "t", "method": "mezo", "estimator": "e", "seed": 3}
    rows = [
        {"kind": "evaluation", **name, "step": 0, "forward_passes": 0},
        {"kind": "step", "step": 0, "train_loss": 0.5},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"kind": "environment"}]))
    results = read([tmp_path])
    assert results.of("step").iloc[0][["model", "method", "seed"]].tolist() == ["m", "mezo", 3]
    assert not any("environment" in warning and "ignored" in warning for warning in results.warnings)
