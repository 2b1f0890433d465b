"""Conversations: chat templates, and instruction data as messages."""

import json
from dataclasses import replace

import pytest
import torch

from llm import tasks
from llm.__main__ import main
from llm.model import loading
from llm.objective import choose
from llm.predict import Predictor

pytestmark = pytest.mark.usefixtures("one_thread")

TEMPLATE = (
    "{% for message in messages %}[{{ message['role'] }}] {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    """The folder of tiny-opt with a chat template."""
    folder = tmp_path_factory.mktemp("chat") / "model"
    made = loading.load("tiny-opt")
    made.tokenizer.chat_template = TEMPLATE
    loading.save(made, folder)
    return folder


def conversations(count=40):
    said = [[{"role": "user", "content": f"What comes after {n}?"}, {"role": "assistant", "content": f"{n + 1}, I say"}]
            for n in range(count)]  # fmt: skip
    return [{"messages": [{"role": "system", "content": "Be brief."}, *turns]} for turns in said]


def task_file(folder, text, rows=None):
    lines = map(json.dumps, conversations() if rows is None else rows)
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "task.toml").write_text(f'train = "rows.jsonl"\n{text}')
    return str(folder / "task.toml")


def test_messages_are_rendered_by_the_template_and_the_answer_ends_as_a_turn(chat_model, tmp_path):
    task = tasks.find(task_file(tmp_path, 'messages = "messages"\n'))
    example = tasks.split(task, None, 4, 2, 2, 0).train[0]
    assert example.turns[0] == ("system", "Be brief.") and example.answers == example.candidates
    assert not task.writing.one_line and task.objective == "language-model"
    made = loading.load(str(chat_model))
    objective = choose("task", task)(made, max_tokens=None, bos=None)
    (row,) = objective.encode([example])
    asked = dict(example.turns)["user"]
    assert (
        made.tokenizer.decode(row.tokens, skip_special_tokens=True)
        == f"[system] Be brief.\n[user] {asked}\n[assistant] "
    )
    (answer,) = row.candidates
    assert made.tokenizer.decode(list(answer)).strip() == example.answers[0]


def test_training_on_messages_lowers_their_loss_and_predict_answers_them(chat_model, tmp_path, capsys):
    name = task_file(tmp_path, 'messages = "messages"\nnew_tokens = 6\n')
    sizes = ["--train", "6", "--dev", "2", "--test", "2", "--batch", "4", "--eval-every", "15"]
    words = ["--model", str(chat_model), "--task", name, "--method", "adamw", "--lr", "1e-3", "--steps", "15"]
    assert main(["train", *words, *sizes, "--no-baselines", "--out", str(tmp_path / "run")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "run/rows.jsonl").read_text().splitlines()]
    losses = [row["dev_loss"] for row in rows if row["kind"] == "evaluation"]
    assert losses[-1] < 0.8 * losses[0]
    predictor = Predictor.load(str(tmp_path / "run"))
    found = list(predictor(conversations(3)))  # the last answers are left out
    assert all(one.answer is not None and not one.probabilities for one in found)


def test_a_prompt_and_labels_may_be_a_conversation(chat_model, tmp_path):
    rows = [{"text": f"text {n}", "label": "yes" if n % 2 else "no"} for n in range(40)]
    said = 'prompt = "Is {text} odd?"\nchat = true\nsystem = "Answer yes or no."\n[labels]\nyes = " yes"\nno = " no"\n'
    task = tasks.find(task_file(tmp_path, said, rows))
    assert task.candidates == ("yes", "no")  # a reply begins with no blank
    example = tasks.split(task, None, 4, 2, 2, 0).train[0]
    assert [role for role, _ in example.turns] == ["system", "user"]
    objective = choose("task", task)(loading.load(str(chat_model)), max_tokens=None, bos=None)
    scores = objective.scores(objective.encode([example, task.ask(tasks.record.DataRecord("row", {"text": "text 1"}))]))
    assert scores.shape == (2, 2) and bool(torch.isfinite(scores).all())


@pytest.mark.parametrize(
    ("text", "rows", "said"),
    [
        ('messages = "messages"\nprompt = "{a}"\n', None, "leave out prompt"),
        ('messages = "messages"\n', [{"messages": "hello"}], "give a list of {role, content}"),
        ('messages = "messages"\n', [{"messages": [{"role": "user", "content": "hi"}]}], "ends with user"),
        ('messages = "messages"\n', [{"messages": [{"role": "usr", "content": "hi"}]}], "Did you mean 'user'?"),
        ('prompt = "{a}"\nsystem = "x"\nanswer = "a"\n', [{"a": "b"}], "give chat = true"),
    ],
)
def test_what_is_no_conversation_is_told(tmp_path, text, rows, said):
    with pytest.raises(ValueError, match=said):
        tasks.split(tasks.find(task_file(tmp_path, text, rows)), None, None, None, None, 0)


def test_a_model_without_a_template_and_icl_are_refused(tmp_path, capsys):
    name = task_file(tmp_path, 'messages = "messages"\n')
    sizes = ["--train", "6", "--dev", "2", "--test", "2", "--no-save", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit):
        main(["train", "--task", name, *sizes, "--batch", "4"])
    assert "has no chat template" in capsys.readouterr().err


def test_the_shown_prompt_is_not_what_a_chat_model_reads(chat_model, tmp_path):
    """The planted twin: the turns decide, not the text that shows them."""
    task = tasks.find(task_file(tmp_path, 'messages = "messages"\n'))
    example = tasks.split(task, None, 4, 2, 2, 0).train[0]
    objective = choose("task", task)(loading.load(str(chat_model)), max_tokens=None, bos=None)
    shown = example._replace(turns=())
    assert objective.encode([example])[0].tokens != objective.encode([shown])[0].tokens
    assert replace(task).writing == task.writing
