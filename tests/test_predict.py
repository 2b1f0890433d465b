"""Rows without labels: answers and probabilities, from Python and from the command line."""

import csv
import json
import math

import pytest
import torch

from llm.__main__ import main
from llm.model import loading
from llm.objective import Objective
from llm.predict import Predictor
from llm.tasks import TASKS, Example
from llm.tasks.record import DataRecord

pytestmark = pytest.mark.usefixtures("one_thread")

TEXTS = ["Win a free prize now, call 0900", "See you at home, mum", "Lunch at one?", "URGENT! Claim your cash", "ok"]
TASK = """
train = "train.csv"
prompt = "{text} This message is"

[labels]
junk = " spam"
ham = " normal"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A task file with its rows, and a run on it."""
    place = tmp_path_factory.mktemp("predict")
    (place / "my.toml").write_text(TASK)
    rows = [f'"{text} {number}",{"junk" if number % 2 else "ham"}' for number, text in enumerate(TEXTS * 8)]
    (place / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    sizes = ["--train", "20", "--dev", "5", "--test", "5", "--batch", "4", "--max-tokens", "16"]
    out = ["--out", str(place / "runs/x"), "--no-baselines"]
    assert main(["train", "--task", str(place / "my.toml"), "--steps", "2", "--lr", "1e-3", *sizes, *out]) == 0
    return place


def predicted(folder, name, *more):
    (folder / "new.csv").write_text("\n".join(["id,text", *(f'{i},"{text}"' for i, text in enumerate(TEXTS))]) + "\n")
    command = ["predict", "--model", str(folder / "runs/x"), "--input", str(folder / "new.csv")]
    assert main([*command, "--out", str(folder / name), *more]) == 0
    return folder / name


def test_probabilities_are_the_softmax_of_the_scores_of_the_labels_by_name(folder):
    made = loading.load(str(folder / "runs/x/model"))
    objective = Objective.of(made, (" spam", " normal"), max_tokens=16)
    rows = objective.encode([Example(f"{text} This message is", 0, (" spam", " normal")) for text in TEXTS])
    wanted = objective.scores(rows).double().softmax(1)
    predictor = Predictor.load(str(folder / "runs/x"), task=str(folder / "my.toml"), batch=2)
    found = list(predictor(TEXTS))
    assert predictor.labels == ("junk", "ham")
    for each, row in zip(found, wanted, strict=True):
        assert list(each.probabilities) == ["junk", "ham"]
        torch.testing.assert_close(torch.tensor(list(each.probabilities.values()), dtype=torch.float64), row.detach())
        assert each.answer == ("junk", "ham")[int(row.argmax())] and each.probability == max(
            each.probabilities.values()
        )


def test_rows_are_read_batch_by_batch(folder):
    taken = []

    def rows():
        for text in TEXTS:
            taken.append(text)
            yield {"text": text}

    predictor = Predictor.load(str(folder / "runs/x/model"), batch=2)
    next(predictor(rows()))
    assert len(taken) == 2


def test_a_file_is_answered_row_by_row_with_its_columns(folder):
    with predicted(folder, "answers.csv", "--batch", "2").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "text", "prediction", "probability", "p(junk)", "p(ham)"]
    assert [row["text"] for row in rows] == TEXTS
    for row in rows:
        assert math.isclose(float(row["p(junk)"]) + float(row["p(ham)"]), 1, abs_tol=1e-12)
        assert float(row[f"p({row['prediction']})"]) == float(row["probability"]) >= 0.5
    lines = predicted(folder, "answers.jsonl", "--batch", "3").read_text().splitlines()
    for row, line in zip(rows, map(json.loads, lines), strict=True):  # another batch, the same answers
        assert line["prediction"] == row["prediction"]
        assert line["probability"] == pytest.approx(float(row["probability"]), abs=1e-6)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--input", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--batch", "0"], "batch is 0"),
        (["--out", "a.xlsx"], "end it in .csv, .tsv or .jsonl"),
        (["--task", "squid"], "Did you mean 'squad'?"),
        (["--model", "tiny-opt"], "give --task"),
        (["--model", "runs/nowhere"], "no such folder"),
    ],
)
def test_what_cannot_be_predicted_is_told_in_one_line(folder, more, said, capsys):
    (folder / "few.csv").write_text("text\nhello\n")
    words = ["--model", str(folder / "runs/x"), "--input", str(folder / "few.csv")]
    with pytest.raises(SystemExit) as stopped:
        main(["predict", *words, *more])
    told = capsys.readouterr().err
    assert stopped.value.code == 2 and said in told and told.count("\n") == 1


def test_a_column_of_the_prompt_that_is_missing_and_one_in_the_way_are_told(folder, capsys):
    for text, said in (("body\nhello\n", "unknown column"), ("text,prediction\na,b\n", "'prediction'")):
        (folder / "odd.csv").write_text(text)
        with pytest.raises(SystemExit):
            main(["predict", "--model", str(folder / "runs/x"), "--input", str(folder / "odd.csv")])
        assert said in capsys.readouterr().err


def test_a_finished_file_is_not_written_over(folder):
    predicted(folder, "kept.csv")
    with pytest.raises(SystemExit):
        predicted(folder, "kept.csv")


def test_evaluate_and_predict_find_the_model_of_a_run(folder, capsys):
    words = ["--task", str(folder / "my.toml"), "--train", "20", "--dev", "5", "--test", "5", "--max-tokens", "16"]
    shown = []
    for name in ("runs/x", "runs/x/model"):
        assert main(["evaluate", "--model", str(folder / name), *words]) == 0
        lines = capsys.readouterr().out.replace(str(folder / name), "").splitlines()
        shown.append([line for line in lines if not line.startswith(("seconds", "peak_mb"))])
    assert shown[0] == shown[1] and any(line.startswith("test_loss") for line in shown[0])


def test_the_card_of_a_run_on_a_task_file_has_prompt_labels_and_the_command(folder):
    card = (folder / "runs/x/model/README.md").read_text()
    assert "`'{text} This message is'`" in card and "`' spam'` for `junk`, `' normal'` for `ham`" in card
    assert "python -m llm predict --model" in card


def test_every_published_task_asks_without_labels():
    asked = [name for name, task in TASKS.items() if task.ask is not None]
    assert asked == list(TASKS)
    blank = DataRecord("row", {"sentence": "A fine film.", "label": -1})
    assert TASKS["sst2"].ask(blank) == Example("A fine film. It was", 0, (" terrible", " great"))
    squad = DataRecord("row", {"title": "Rain", "context": "It is water.", "question": "What is rain?"})
    assert TASKS["squad"].ask(squad).prompt.endswith("Question: What is rain?\nAnswer:")
    entities = {"passage": "Ann met Bea.", "query": "@placeholder was there.", "entities": ["Ann", "Bea"]}
    assert TASKS["record"].ask(DataRecord("row", entities)).choices == ("Ann", "Bea")
