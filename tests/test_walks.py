"""The walks of a newcomer: what they take from their pages, and that the committed times are of these commands."""

import csv
import json
import re
import subprocess
from pathlib import Path

import pytest
import walks

from docs.site import conf
from llm.evaluate import next_command
from llm.options.evaluate import EvaluateOptions
from llm.train import next_commands

PROGRAMS = {
    "own-estimator": ["python3.11 -m venv", "pip wheel", "pip install", "mkdir", "python -m zobench audit"],
    "own-data": [
        "python3.11 -m venv", "pip install", "python -m llm list", "python -m llm train", "python -m llm train",
        "python -m llm evaluate", "python -m analysis report", "python -m llm predict", "python -m llm export",
        "python -c",
    ],
    "findings": ["python3.11 -m venv", "pip install", "python -m llm train", *2 * ["python -m analysis tables"]],
}  # fmt: skip
ROWS = [json.loads(line) for line in (walks.ROOT / "results/walks/rows.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", walks.WALKS)
def test_a_walk_runs_the_commands_of_its_page_in_order(name):
    walk = walks.WALKS[name]
    found = walk.chosen(walk.text)
    assert len(found) == len(PROGRAMS[name])
    assert all(command.startswith(program) for command, program in zip(found, PROGRAMS[name], strict=True)), found


@pytest.mark.parametrize("name", walks.WALKS)
def test_the_committed_times_are_of_the_commands_that_the_page_has(name):
    walk = walks.WALKS[name]
    steps = [row for row in ROWS if row["walk"] == name and row["kind"] == "walk-step"]
    (total,) = (row for row in ROWS if row["walk"] == name and row["kind"] == "walk")
    assert [row["command"] for row in steps] == walk.chosen(walk.text)
    assert total["seconds"] == pytest.approx(sum(row["seconds"] for row in steps), abs=0.1)


def test_commands_are_the_indented_lines_outside_of_fences():
    page = (
        "Text:\n\n    one --x \\\n        --y     # why\n    two\n\n```python\n\n    no()\n```\n\nText\n\n    three\n"
    )
    assert walks.commands(page) == ["one --x --y     # why", "two", "three"]
    assert walks.fenced(page, "python") == ["\n    no()\n"] and not walks.fenced(page, "toml")


def test_a_section_ends_at_the_next_heading_of_its_depth():
    page = "## A\na\n### B\nb\n#### C\nc\n### D\nd\n## E\ne\n"
    assert walks.section(page, "### B") == "b\n#### C\nc\n"
    assert walks.section(page, "## A").endswith("d\n") and walks.section(page, "## E") == "e\n"
    with pytest.raises(ValueError, match="no heading '### Z'"):
        walks.section(page, "### Z")


def test_the_files_of_the_walk_are_200_texts_of_two_kinds(tmp_path):
    walks.WALKS["own-data"].prepare(tmp_path, walks.WALKS["own-data"].text)
    with (tmp_path / "orders.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 200 and {row["label"] for row in rows} == {"order", "question"}
    assert all((row["label"] == "question") == row["text"].endswith("?") for row in rows)
    assert 'train = "orders.csv"' in (tmp_path / "orders.toml").read_text()


def test_a_command_goes_on_where_the_last_one_ended_and_a_failure_ends_the_walk(tmp_path):
    place = tmp_path / "checkout"
    place.mkdir()
    here, spent = walks.timed("mkdir -p ../other && cd ../other", place, place)
    assert here == tmp_path / "other" and spent["seconds"] >= 0
    with pytest.raises(subprocess.CalledProcessError):
        walks.timed("false\ntrue", here, place)


def test_training_names_the_next_commands_of_what_it_kept(tmp_path):
    assert next_commands(tmp_path, "spam") == f"next: python -m analysis report {tmp_path} --out report.html"
    (tmp_path / "model").mkdir()
    report, predict, export = next_commands(tmp_path, "my.toml").splitlines()
    assert report.endswith("report.html") and f"predict --model {tmp_path} --task my.toml" in predict
    assert export.strip() == f"python -m llm export {tmp_path} --to FOLDER"


def test_a_repeated_row_far_from_the_committed_one_is_refused(tmp_path):
    def run(folder: str, accuracy: float) -> None:
        row = {"kind": "final", "test_accuracy": accuracy, "test_examples": 330, "forward_passes": 10, "status": "ok"}
        (tmp_path / folder).mkdir(parents=True)
        Path(tmp_path / folder / "rows.jsonl").write_text(json.dumps(row) + "\n")

    run(walks.REPEATED, 0.93)
    run(walks.AGAIN, 0.95)
    assert walks.WALKS["findings"].check(tmp_path)["committed_test_accuracy"] == 0.93
    (tmp_path / walks.AGAIN / "rows.jsonl").write_text(
        (tmp_path / walks.AGAIN / "rows.jsonl").read_text().replace("0.95", "0.7")
    )
    with pytest.raises(AssertionError):
        walks.WALKS["findings"].check(tmp_path)


def test_an_evaluation_names_the_command_that_predicts():
    said = next_command(EvaluateOptions(model="runs/x", task="my.toml"))
    assert said == "next: python -m llm predict --model runs/x --task my.toml --input NEW.csv --out answers.csv"


def test_options_of_commands_on_the_site_are_marked_and_nothing_else():
    page = "<p>one-point --x</p><pre><span></span>python -m llm train --eval-every 5 --out runs/a-b\n</pre>"
    marked = conf.whole_options(page)
    assert re.findall(r'<span class="option">(.*?)</span>', marked) == ["-m", "--eval-every", "--out"]
    assert re.sub(r'<span class="option">(.*?)</span>', r"\1", marked) == page
