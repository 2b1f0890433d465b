"""Further evaluation sets of a run: what is measured of them, when, and what the report makes of it."""

import json
from pathlib import Path

import pytest

from analysis.outcomes import outcomes
from analysis.rows import read
from analysis.tables.also import also_table, further
from llm import objective, tasks
from llm.loop.loop import Loop
from llm.model import loading
from llm.options.train import TrainOptions
from llm.tasks.split import for_evaluation

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"steps": 6, "train": 20, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 3, "lr": 3e-3}
TOML = """
name = "moods"
train = "moods.csv"
prompt = "{text} It was"
label = "mood"
[labels]
bad = " terrible"
good = " great"
"""


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), **changes})


def rows(folder, kind):
    return [row for row in map(json.loads, (folder / "rows.jsonl").read_text().splitlines()) if row["kind"] == kind]


@pytest.fixture
def moods(tmp_path):
    """A task file whose test set is small."""
    texts = [f"{text} {number},{mood}" for number in range(16) for text, mood in (("dull", "bad"), ("fine", "good"))]
    (tmp_path / "moods.csv").write_text("\n".join(["text,mood", *texts]))
    (tmp_path / "moods.toml").write_text(TOML)
    return str(tmp_path / "moods.toml")


def test_every_set_is_measured_at_every_evaluation_and_at_the_end(moods, tmp_path):
    session = Loop.of(options(tmp_path, also=("sentences", moods), also_examples=12))
    session.go()
    found = rows(tmp_path / "run", "also")
    steps = [(row["step"], row["set"]) for row in found if row["when"] == "evaluation"]
    assert steps == [(step, name) for step in (0, 3, 6) for name in ("sentences", moods)]
    (final,) = rows(tmp_path / "run", "final")
    assert final["selected_step"] == 3
    ends = [row for row in found if row["when"] == "end"]
    measured = [row for row in found if row["when"] == "evaluation" and row["step"] == 3]
    assert [{**row, "when": "evaluation"} for row in ends] == measured and len(ends) == 2
    tuned = loading.load(str(tmp_path / "run/model"))  # planted: the weights of the last step measure something else
    for row, other in zip(ends, (r for r in found if r["when"] == "evaluation" and r["step"] == 6), strict=True):
        task = tasks.find(row["set"])
        judged = objective.choose("task", task)(tuned, max_tokens=24, bos=None)
        again = judged.measure(judged.encode(for_evaluation(task, None, 12)[0]))
        assert (again.loss, again.accuracy, row["metric"]) == (row["loss"], row["accuracy"], "accuracy")
        assert other["loss"] != row["loss"]


def test_a_set_smaller_than_asked_for_is_told_and_a_larger_one_is_cut(moods, tmp_path, capsys):
    Loop.of(options(tmp_path, also=(moods, "sentences"), also_examples=30))
    notes = [row["note"] for row in rows(tmp_path / "run", "note")]
    shrunk = [note for note in notes if note.endswith("test rows, fewer than 30: all are used")]
    assert len(shrunk) == 1 and shrunk[0].startswith("moods: ") and shrunk[0] in capsys.readouterr().out
    task = tasks.find("sentences")
    few, told = for_evaluation(task, None, 7)
    assert len(few) == 7 and not told
    assert few == tasks.split(task, None, None, None, None, 3).test[:7]  # of every seed


def test_a_continued_run_has_each_row_once_and_the_steps_are_those_without_sets(moods, tmp_path):
    changes = {"also": ("sentences", moods), "also_examples": 8}
    Loop.of(options(tmp_path, **changes, out=str(tmp_path / "whole"))).go()
    Loop.of(options(tmp_path, out=str(tmp_path / "without"))).go()
    session = Loop.of(options(tmp_path, **changes))
    append = session.log.record.append

    def killed(row, sync=True):
        if row["kind"] == "also" and row["step"] == 3 and row["set"] == moods:
            raise KeyboardInterrupt
        append(row, sync)

    session.log.record.append = killed
    with pytest.raises(KeyboardInterrupt):
        session.go()
    assert [row["step"] for row in rows(tmp_path / "run", "evaluation")] == [0]
    Loop.of(options(tmp_path, **changes)).go()
    assert rows(tmp_path / "run", "also") == rows(tmp_path / "whole", "also")
    losses = [[row["dev_loss"] for row in rows(tmp_path / name, "evaluation")] for name in ("run", "without")]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("also", "message"),
    [
        (("sentenses",), "Did you mean 'sentences'"),
        (("sst2@nowhere",), "nowhere"),
        (("spam", "spam"), "names 'spam' more than once"),
        (("nowhere.toml",), "nowhere.toml"),
    ],
)
def test_a_set_that_is_none_is_told_before_a_model_is_loaded(also, message, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "load", lambda *_: pytest.fail("the model was loaded"))
    with pytest.raises(ValueError, match=message):
        Loop.of(options(tmp_path, also=also))
    with pytest.raises(ValueError, match="also_examples is 0"):
        Loop.of(options(tmp_path, also_examples=0))
    assert not (tmp_path / "run").exists()


def test_the_report_compares_the_end_with_the_start(moods, tmp_path):
    for seed in (0, 1):
        out = str(tmp_path / "runs" / str(seed))
        Loop.of(options(tmp_path, also=("sentences",), also_examples=20, seed=seed, out=out)).go()
    results = read([Path(tmp_path / "runs")])
    assert not results.warnings
    found = further(results.of("also"), outcomes(results))
    for row in found.itertuples():
        kept = rows(tmp_path / "runs" / row.run, "also")
        assert (row.accuracy_start, row.accuracy) == (kept[0]["accuracy"], kept[-1]["accuracy"])
    shown = also_table(found).frame
    assert len(shown) == 1 and shown["n"][0] == "2" and shown["set"][0] == "sentences"
    before = sum(found["accuracy_start"]) / 2
    assert shown["before, %"][0].startswith(f"{100 * before:.1f} [")
