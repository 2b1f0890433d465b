"""Tables for pages in Markdown, and the overview of methods and tasks."""

import json
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.outcomes import outcomes
from analysis.rows import read
from analysis.tables.table import markdown, table
from zobench.run import toml

pytestmark = pytest.mark.environment

ACCURACIES = {("mezo", "sst2"): (0.6, 0.7), ("mezo", "copa"): (0.5,), ("adamw", "sst2"): (0.8,)}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for (method, task), accuracies in ACCURACIES.items():
        for seed, accuracy in enumerate(accuracies):
            folder = tmp_path / f"{task}-{method}-{seed}"
            folder.mkdir()
            about = {"model": "m", "task": task, "method": method, "estimator": method, "seed": seed}
            final = {"kind": "final", **about, "status": "ok", "step": 5, "forward_passes": 10, "backward_passes": 0}
            final |= {"test_accuracy": accuracy, "test_examples": 100, "seconds": 1.0, "lr": 0.1}
            (folder / "rows.jsonl").write_text(json.dumps(final) + "\n")
            (folder / "config.toml").write_text(toml.dumps({"command": "train", "method": method, "lr": 0.1}))
            (folder / "environment.json").write_text("{}")
    return tmp_path


def test_the_overview_has_a_row_a_method_and_a_column_a_task(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", str(runs)]) == 0
    shown = capsys.readouterr().out
    start = shown.index("**Test accuracy by method and task**")
    header, _, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in shown[start:].splitlines()[2:6]
    )
    mezo, adamw = (dict(zip(header, line, strict=True)) for line in lines)
    assert (mezo["method"], adamw["method"]) == ("mezo", "adamw")
    assert mezo["sst2"] == "65.0 [1.5, 100.0] (2)"  # Student's t of two seeds
    assert mezo["copa"] == "50.0 [40.4, 59.6]"  # Wilson's of 100 examples
    assert adamw["sst2"].startswith("80.0 [") and adamw["copa"] == "–"


def test_a_preset_and_measured_baselines_split_no_method(runs: Path) -> None:
    for seed, more in enumerate(({}, {"preset": "mezo-m-sst2", "baselines": False})):
        config = {"command": "train", "method": "mezo", "lr": 0.1, **more}
        (runs / f"sst2-mezo-{seed}/config.toml").write_text(toml.dumps(config))
    assert set(outcomes(read([runs]))["label"]) == {"mezo", "adamw"}


def test_an_option_that_was_not_given_is_not_in_the_label(runs: Path) -> None:
    config = {"command": "train", "method": "mezo", "lr": 0.1, "adapter": "lora", "select": "best"}
    (runs / "sst2-mezo-1/config.toml").write_text(toml.dumps(config))
    assert set(outcomes(read([runs]))["label"]) == {"mezo", "mezo adapter=lora", "adamw"}


def test_markdown_keeps_bars_in_cells_apart() -> None:
    assert markdown(table([{"a": "x|y", "b": "1"}], "Title", "Note.")) == (
        "**Title**\n\n| a | b |\n| --- | --- |\n| x\\|y | 1 |\n\nNote."
    )
