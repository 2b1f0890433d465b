"""Countdown: the reward of an expression, and generation as the objective."""

import json

import pytest

from llm import tasks
from llm.__main__ import main
from llm.model import loading
from llm.objective import choose
from llm.objective.answers import written
from llm.options import presets
from llm.tasks import countdown
from llm.tasks.countdown import COUNTDOWN, FORM, posed, reward

pytestmark = pytest.mark.usefixtures("one_thread")

EXAMPLE = posed("3, 5, 8", 19, "(3 * 8) - 5")
REWARDS = {
    "3 * 8 - 5": 1,
    "8*3-5 = 19": 1,
    "I think <answer>3 * 8 - 5</answer>": 1,
    "(8 * 3 - 5)": 1,
    "3 * 8 - 5 + 0": FORM,  # a number more
    "3 + 8 + 8": FORM,  # the target by other numbers
    "8 - 5 - 3": FORM,
    "19": FORM,
    "3 / (8 - 8)": FORM,  # divided by 0
    "3 * 8 - five": 0,
    "3 ** 8": 0,
    "3 * 8 -": 0,
    "": 0,
    "__import__('os')": 0,
    "(" * 90 + "3" + ")" * 90: 0,
    "9" * 101: 0,
}


@pytest.mark.parametrize("answer", REWARDS)
def test_the_reward_is_that_of_the_form_and_of_the_target(answer):
    assert reward(answer, EXAMPLE) == REWARDS[answer]


def test_every_question_is_solved_by_its_own_answer_and_none_is_asked_twice():
    pools = COUNTDOWN.pools(None)
    items = [*pools.training, *pools.test]
    assert len({item.key for item in items}) == len(items) > 2000
    assert all(reward(item.example.answers[0], item.example) == 1 for item in items[::7])
    assert countdown.question(3) == countdown.question(3) != countdown.question(4)


def test_the_loss_is_one_minus_the_reward_of_what_is_written():
    made = loading.load("tiny-opt")
    objective = choose("task", COUNTDOWN)(made, max_tokens=None, bos=None)
    rows = objective.encode(tasks.split(COUNTDOWN, None, 4, 2, 2, 0).train)
    answers = written(objective, rows)
    wanted = [1 - reward(text, row.example) for text, row in zip(answers, rows, strict=True)]
    assert objective.losses(rows).tolist() == pytest.approx(wanted)
    measured = objective.measure(rows)
    assert measured.metric == "reward" and measured.accuracy == pytest.approx(1 - measured.loss)
    assert measured.others == {"solved": 0.0}


def test_a_perfect_writer_has_reward_1(monkeypatch):
    objective = choose("task", COUNTDOWN)(loading.load("tiny-opt"), max_tokens=None, bos=None)
    rows = objective.encode(tasks.split(COUNTDOWN, None, 4, 2, 2, 0).train)
    monkeypatch.setattr("llm.objective.answers.written", lambda _, batch: [row.example.answers[0] for row in batch])
    measured = objective.measure(rows)
    assert (measured.loss, measured.accuracy, measured.others["solved"]) == (0, 1, 1)


@pytest.mark.parametrize("method", ["es", "eggroll", "mezo"])
def test_the_presets_train_with_generation_as_the_objective(method, tmp_path):
    values = presets.table()[f"{method}-tiny-opt-countdown"].values
    assert str(values["method"]).startswith(f"{method}:n=")
    sizes = ["--steps", "1", "--batch", "2", "--train", "2", "--dev", "1", "--test", "1", "--no-baselines", "--no-save"]
    words = ["--preset", f"{method}-tiny-opt-countdown", "--method", f"{method}:n=2"]
    assert main(["train", *words, *sizes, "--out", str(tmp_path / "run")]) == 0
    final = [json.loads(line) for line in (tmp_path / "run/rows.jsonl").read_text().splitlines()][-1]
    assert final["metric"] == "reward" and final["kind"] == "final" and 0 <= final["test_accuracy"] <= 1


def test_a_task_without_a_reward_has_no_such_objective(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["train", "--task", "spam", "--objective", "reward", "--out", str(tmp_path)])
    assert "task spam has no reward" in capsys.readouterr().err
