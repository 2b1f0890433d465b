"""Baselines without a step."""

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import language_model

from analysis.outcomes import outcomes
from analysis.rows import read
from analysis.tables.finetuning import accuracies, accuracies_table, costs_table
from llm import tasks
from llm.__main__ import main
from llm.baselines import BASELINES, BaselineSetting, in_context, linear_probing, parse
from llm.baselines.calibrated import Calibrated
from llm.baselines.in_context import InContext
from llm.baselines.linear_probing import LinearProbing
from llm.baselines.rand_opt import RandOpt
from llm.baselines.zero_shot import ZeroShot
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading
from llm.objective import choose
from llm.options.train import TrainOptions
from llm.tasks import Example
from zobench import Combination, Gaussian, ModuleSpace, Term, derive

pytestmark = pytest.mark.environment

QUICK = {"steps": 4, "train": 40, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 2, "save": False}


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), **changes})


def rows(folder, kind):
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def report(*folders: Path):
    results = read(folders)
    scores = accuracies(outcomes(results), results.of("baseline"))
    return accuracies_table(scores).frame.merge(costs_table(scores).frame, on="method")


def final_row(tmp_path, method, **changes):
    """The final row of a baseline."""
    assert train(options(tmp_path, method=method, **changes))["status"] == "ok"
    (final,) = rows(tmp_path / "run", "final")
    return final


@pytest.fixture(scope="module")
def tiny():
    return loading.load("tiny-opt")


def setting(tiny, task, parts, seed=0, **changes):
    objective = choose("task", task)(tiny, **{"max_tokens": 200, "bos": None, **changes})
    told = []
    encoded = [objective.encode(part) for part in parts]
    return BaselineSetting(task, objective, *encoded, seed, told.append), told


SPAM, NORMAL = 1, 0
WORDS = (" normal", " spam")
TOLD = [
    Example("Free entry, call now! This message is", SPAM, WORDS),
    Example("Lunch at one? This message is", NORMAL, WORDS),
    Example("You won a prize. This message is", SPAM, WORDS),
]


def test_the_prompt_of_icl_is_what_is_written_by_hand(tiny):
    here, told = setting(tiny, tasks.find("spam"), (TOLD, TOLD[:1], TOLD[1:2]))
    order = [row.example for row in in_context.drawn(here.train, 3, seed=0)]
    assert sorted(order) == sorted(TOLD)
    asked = prompts_read(here, InContext(shots=3))
    by_hand = {
        TOLD[0].prompt: "Free entry, call now! This message is spam",
        TOLD[1].prompt: "Lunch at one? This message is normal",
        TOLD[2].prompt: "You won a prize. This message is spam",
    }
    first, second, third = (by_hand[example.prompt] for example in order)
    assert asked == [
        f"{first}\n\n{second}\n\n{third}\n\nFree entry, call now! This message is",
        f"{first}\n\n{second}\n\n{third}\n\nLunch at one? This message is",
    ]
    assert told == []


def prompts_read(here, baseline):
    """What the model is asked on dev and test, as text, and each with its one BOS."""
    tokenizer, seen = here.objective.language_model.tokenizer, []
    measure = type(here.objective).measure

    def watched(objective, examples):
        seen.extend(row.tokens for row in examples)
        return measure(objective, examples)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(here.objective), "measure", watched)
        baseline.measure(here)
    assert all(ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1 for ids in seen)
    assert all(len(ids) <= here.objective.max_tokens for ids in seen)
    return [tokenizer.decode(ids[1:]) for ids in seen]


@pytest.mark.parametrize("room", range(12, 60, 5))
def test_demonstrations_are_cut_whole_the_earliest_first(room, tiny):
    here, told = setting(tiny, tasks.find("spam"), (TOLD, TOLD[:1], TOLD[1:2]), max_tokens=room)
    solved = [in_context.demonstration(row.example) for row in in_context.drawn(here.train, 3, 0)]
    count = lambda text: len(tiny.tokenizer(text)["input_ids"])  # noqa: E731
    wanted, fitting = [], []
    for question in (TOLD[0].prompt, TOLD[1].prompt):
        whole = [k for k in range(4) if count("\n\n".join([*solved[3 - k :], question])) <= room]
        fitting.append(max(whole, default=0))
        wanted.append("\n\n".join([*solved[3 - fitting[-1] :], question]))
    if max(fitting) == 0:
        with pytest.raises(ValueError, match=f"no demonstration fits in --max-tokens {room}"):
            InContext(shots=3).measure(here)
        return
    read = prompts_read(here, InContext(shots=3))
    assert [text for text, k in zip(read, fitting, strict=True) if k] == [
        text for text, k in zip(wanted, fitting, strict=True) if k
    ]
    said = f"icl: {min(fitting)} to {max(fitting)} of 3 demonstrations fit in --max-tokens {room}"
    assert told == [] if min(fitting) == 3 else told[0].startswith(said)


def test_icl_takes_candidates_of_each_examples_own_and_answers_that_are_written(tiny):
    copa = [
        Example("It rained so", 0, (" the street was wet.", " I slept.")),
        Example("I ran because", 1, (" a", " I was late.")),
    ]
    here, _ = setting(tiny, replace(tasks.find("copa")), (copa, copa[:1], copa[1:]))
    assert "It rained so the street was wet." in prompts_read(here, InContext(shots=2))[0]
    assert "I ran because I was late.\n\n" in prompts_read(here, InContext(shots=2))[0]
    squad = [
        Example("Title: Rain\nContext: Rain is water.\nQuestion: What is rain?\nAnswer:", 0, (" water\n",), ("water",)),
        Example("Title: Sun\nContext: It is a star.\nQuestion: What?\nAnswer:", 0, (" a star\n",), ("a star", "star")),
    ]
    here, _ = setting(tiny, tasks.find("squad"), (squad[:1], squad[1:], squad[1:]))
    by_hand = (
        "Title: Rain\nContext: Rain is water.\nQuestion: What is rain?\nAnswer: water\n\n"
        "Title: Sun\nContext: It is a star.\nQuestion: What?\nAnswer:"
    )
    assert prompts_read(here, InContext(shots=1)) == [by_hand, by_hand]
    found = InContext(shots=1).measure(here)
    assert found.test.metric == "f1" and 0 <= found.test.accuracy <= 1


def test_scores_of_icl_are_those_of_the_long_prompt_read_alone(tiny):
    here, _ = setting(tiny, tasks.find("spam"), (TOLD, TOLD[:2], TOLD[1:]))
    found = InContext(shots=2).measure(here)
    texts = prompts_read(here, InContext(shots=2))[2:]
    with torch.no_grad():
        logits = [tiny.model(**tiny.tokenizer(text, return_tensors="pt")).logits[0, -1] for text in texts]
    normal, spam = (tiny.tokenizer(word, add_special_tokens=False)["input_ids"] for word in WORDS)
    wanted = torch.stack([row[[normal[0], spam[0]]] for row in logits])
    assert len(normal) == len(spam) == 1
    assert torch.allclose(found.test.scores, wanted, atol=1e-4)
    plain = ZeroShot().measure(here).test.scores
    assert (plain - wanted).abs().max() > 0.1  # the planted error: demonstrations that are not read


def test_other_seeds_draw_other_demonstrations_and_more_shots_begin_with_the_same(tiny):
    task = tasks.find("spam")
    split = tasks.split(task, None, 60, 2, 2, 0)
    here, _ = setting(tiny, task, split)
    one, other = (in_context.drawn(here.train, 10, seed) for seed in (0, 1))
    assert one != other and in_context.drawn(here.train, 4, 0) == one[:4]
    assert {row.label for row in one} == {0, 1}


@torch.no_grad()
@pytest.mark.parametrize("kind", ["opt", "gpt2", "llama", "roberta"])
def test_features_are_the_last_hidden_states_of_one_prompt_at_a_time(kind):
    model = language_model(kind)
    task = tasks.find("spam")
    objective = choose("task", replace(task, candidates=("Y", "N")))(model, max_tokens=60, bos=None)
    rows = objective.encode([e._replace(candidates=("Y", "N")) for e in TOLD])
    found = linear_probing.features(model, rows)
    for row, state in zip(rows, found, strict=True):
        place = row.tokens.index(model.tokenizer.mask_token_id) if model.masked else len(row.tokens) - 1
        wanted = model.model(input_ids=torch.tensor([row.tokens]), output_hidden_states=True).hidden_states[-1][
            0, place
        ]
        if kind == "opt":  # its states pass through project_out
            wanted = model.model.base_model(input_ids=torch.tensor([row.tokens])).last_hidden_state[0, place]
        assert torch.allclose(state, wanted, atol=1e-5)
        assert not torch.allclose(state, found.roll(1, 0)[rows.index(row)], atol=1e-2)


def test_linear_probing_learns_what_zero_shot_does_not_know(tmp_path):
    final = final_row(tmp_path, "linear-probing", train=200, dev=50, test=300, max_tokens=64)
    # 300 held-out messages, half of them spam: ten standard errors above chance; zero-shot gives one answer to all
    assert final["test_accuracy"] > 0.5 + 10 * (0.25 / 300) ** 0.5
    assert final["forward_passes"] == 4 + 1 + 5 and final["backward_passes"] == 0
    assert final["estimator"] == "LinearProbing()" and final["lr"] is None and final["step"] == 0


def test_linear_probing_with_labels_that_say_nothing_is_chance(tiny):
    """The planted error: were dev or test labels seen by the fit, or rows shuffled, this would not be chance."""
    task = tasks.find("spam")
    parts = tasks.split(task, None, 100, 50, 200, 0)
    lied = [e._replace(label=i % 4 // 2) for i, e in enumerate(parts.train)]  # labels alternate in a balanced split
    here, _ = setting(tiny, task, (lied, parts.dev, parts.test))
    right = LinearProbing().measure(here).test.accuracy
    assert abs(right - 0.5) < 5 * (0.25 / 200) ** 0.5


def test_linear_probing_scores_are_log_odds(tiny):
    task = tasks.find("spam")
    here, _ = setting(tiny, task, tasks.split(task, None, 40, 10, 10, 0))
    found = LinearProbing().measure(here).test
    assert found.loss < 0.7 and torch.equal(found.scores[:, 0], torch.zeros(10, dtype=torch.float64))
    reference = torch.nn.functional.binary_cross_entropy_with_logits(found.scores[:, 1], found.labels.double())
    assert found.loss == pytest.approx(float(reference))


def test_three_classes_are_probed_in_the_order_of_the_candidates(tiny):
    """Each class has a word of its own at the end of the prompt, so that the last state tells them apart."""
    words = (" Yes", " No", " Maybe")
    ends = (" free", " lunch", " call")
    made = [Example(f"This is {i}{ends[i % 3]}", i % 3, words) for i in range(30)]
    task = replace(tasks.find("cb"), candidates=words)
    here, _ = setting(tiny, task, (made[:18], made[18:24], made[24:]))
    found = LinearProbing().measure(here)
    assert found.test.accuracy == 1.0 and found.test.scores.shape == (6, 3) and "macro-f1" in found.test.others


def test_calibration_of_a_run_is_the_one_of_the_evaluations(tmp_path):
    final = final_row(tmp_path, "calibrated", train=60, dev=30, test=30, max_tokens=64)
    train(options(tmp_path, out=str(tmp_path / "mezo"), train=60, dev=30, test=30, max_tokens=64))
    _, zero, wanted = rows(tmp_path / "mezo", "baseline")
    assert (final["dev_accuracy"], final["test_accuracy"]) == (wanted["dev_accuracy"], wanted["test_accuracy"])
    assert final["test_accuracy"] > zero["test_accuracy"] + 0.1
    assert final["forward_passes"] == wanted["forward_passes"] == 3


def test_the_shift_without_content_is_the_score_of_the_empty_prompt(tiny):
    task = tasks.find("spam")
    assert task.content_free.prompt == "This message is"
    here, _ = setting(tiny, task, (TOLD, TOLD, TOLD))
    plain, found = ZeroShot().measure(here).test, Calibrated("content-free").measure(here).test
    with torch.no_grad():
        logits = tiny.model(**tiny.tokenizer("This message is", return_tensors="pt")).logits[0, -1]
    words = [tiny.tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in WORDS]
    wanted = plain.scores - logits[words]
    assert torch.allclose(found.scores.float(), wanted, atol=1e-4)
    assert found.accuracy == float((wanted.argmax(1) == torch.tensor([1, 0, 1])).double().mean())


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("sst2", "It was"),
        ("trec", "It is about"),
        ("rte", 'Does this mean that "" is true? Yes or No?\n'),
        ("boolq", "?\n"),
        ("wic", 'Does the word "" have the same meaning in these two sentences? Yes, No?\n\n\n'),
        ("cb", 'Suppose  Can we infer that ""? Yes, No, or Maybe?\n'),
    ],
)
def test_prompts_without_content(name, prompt):
    assert tasks.find(name).content_free.prompt == prompt


def test_a_task_file_has_a_prompt_without_content(tmp_path):
    (tmp_path / "mine.csv").write_text("text,label\n" + "".join(f"row {i},{i % 2}\n" for i in range(20)))
    toml = 'train = "mine.csv"\nprompt = "{text} It was"\n[labels]\n0 = " bad"\n1 = " good"\n'
    (tmp_path / "mine.toml").write_text(toml)
    assert tasks.find(str(tmp_path / "mine.toml")).content_free == Example(" It was", 0, (" bad", " good"))
    (tmp_path / "mine.toml").write_text('train = "mine.csv"\nprompt = "{text} It was"\nanswer = "label"\n')
    assert tasks.find(str(tmp_path / "mine.toml")).content_free is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "icl:shot=2"}, "Did you mean 'shots'"),
        ({"method": "icl:shots=0"}, "shots is 0"),
        ({"method": "icl:shots=2.5"}, "shots is 2.5"),
        ({"method": "icl:shots=41"}, "needs 41 demonstrations, but there are 40"),
        ({"method": "zeroshot"}, "Did you mean 'zero-shot'"),
        ({"method": "zero-shot:x=1"}, "unknown option of zero-shot"),
        ({"method": "calibrated:how=contentfree"}, "Did you mean 'content-free'"),
        ({"method": "linear-probing", "train": 2}, "2 or more training examples of each candidate"),
    ],
)
def test_bad_baselines_are_told_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Loop.of(options(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", ["linear-probing", "calibrated"])
@pytest.mark.parametrize("name", ["copa", "squad"])
def test_candidates_of_each_examples_own_are_refused_in_words(method, name):
    with pytest.raises(ValueError, match=rf"all examples share; those of task {name} have .* give --method"):
        parse(method).check(tasks.find(name))


def test_a_missing_scikit_learn_is_told(monkeypatch):
    monkeypatch.setattr(linear_probing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install"):
        LinearProbing().check(tasks.find("spam"))


def test_options_of_steps_are_told_where_they_were_given_and_no_part_of_the_run(tmp_path, capsys):
    final_row(tmp_path, "zero-shot", lr=1e-3, steps=7)
    assert "zero-shot takes no step: --batch, --lr, --steps, --eval-every not used" in capsys.readouterr().out
    written = tomllib.loads((tmp_path / "run/config.toml").read_text())
    assert "lr" not in written and written["method"] == "zero-shot" and written["train"] == 40
    quiet = options(
        tmp_path,
        method="zero-shot",
        **{name: getattr(TrainOptions(), name) for name in ("steps", "batch", "eval_every")},
    )
    assert train(quiet)["kind"] == "final"  # the same run
    assert train(replace(quiet, out=str(tmp_path / "quiet")))["test_accuracy"] == 0.5
    assert not any("not used" in row["note"] for row in rows(tmp_path / "quiet", "note"))
    lines = (tmp_path / "quiet/rows.jsonl").read_text().splitlines()
    assert {json.loads(line)["kind"] for line in lines} == {"note", "final"}  # the note is about prompts that are cut


def test_what_changes_the_model_for_its_steps_does_not_change_it_here(tmp_path):
    plain = final_row(tmp_path, "zero-shot", dtype="bfloat16")
    out = str(tmp_path / "master")
    changed = train(options(tmp_path, method="zero-shot", dtype="bfloat16", rounding="master", adapter="lora", out=out))
    assert changed["test_loss"] == plain["test_loss"] and changed["weights"] == plain["weights"]
    (note,) = (row for row in rows(tmp_path / "master", "note") if "not used" in row["note"])
    assert "--adapter" in note["note"] and "--rounding" in note["note"]


def test_a_report_has_baselines_beside_what_was_trained(tmp_path):
    for method in ("zero-shot", "icl:shots=1", "mezo"):
        train(options(tmp_path, method=method, max_tokens=100, out=str(tmp_path / method)))
    shown = report(*(tmp_path / method for method in ("zero-shot", "icl:shots=1", "mezo"))).set_index("method")
    assert shown.loc["zero-shot", "learning rate"] == "–" and shown.loc["mezo", "learning rate"] == "0.0001"
    assert shown.loc["zero-shot", "forward passes"] == "2" and set(shown["runs"]) == {"1 of 1"}


def test_a_study_does_not_tune_what_takes_no_step(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["study", "--methods", "mezo,icl", "--out", str(tmp_path / "s")])
    assert "llm train --method icl" in capsys.readouterr().err


def test_every_baseline_is_listed(capsys):
    main(["list"])
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed and baseline.about in listed for name, baseline in BASELINES.items())


def test_a_baseline_leaves_the_model_alone(tiny):
    task = tasks.find("spam")
    here, _ = setting(tiny, task, tasks.split(task, None, 40, 5, 5, 0))
    before = {name: p.clone() for name, p in tiny.model.named_parameters()}
    for text in ("zero-shot", "calibrated", "calibrated:how=content-free", "icl:shots=2", "linear-probing"):
        parse(text).measure(here)
    assert all(torch.equal(before[name], p) for name, p in tiny.model.named_parameters())


def test_randopt_is_the_vote_of_the_best_guesses_and_leaves_the_weights_alone(tiny):
    here, _ = setting(tiny, tasks.find("spam"), (TOLD, TOLD[:2], TOLD))
    before = {name: p.detach().clone() for name, p in tiny.model.named_parameters()}
    outcome = RandOpt(n=4, best=3, sigma=0.02).measure(here)
    assert all(torch.equal(before[name], p) for name, p in tiny.model.named_parameters())
    by_hand = []
    for guess in range(4):
        space = ModuleSpace(tiny.model)
        term = Term(Gaussian(), derive("randopt", 0, guess), torch.ones(1, dtype=torch.float64))
        space.step_(Combination((term,)), 0.02)
        space.settle_()
        by_hand.append((here.objective.measure(here.train), here.objective.measure(here.test)))
        for name, p in tiny.model.named_parameters():
            p.data.copy_(before[name])
    ranked = sorted(range(4), key=lambda guess: (-by_hand[guess][0].accuracy, by_hand[guess][0].loss))
    assert outcome.columns["guesses"] == ranked[:3]
    votes = torch.stack([by_hand[guess][1].scores.argmax(1) for guess in ranked[:3]]).mode(0).values
    assert torch.equal(outcome.test.scores.argmax(1), votes)
    assert outcome.test.accuracy == pytest.approx(float((votes == outcome.test.labels).double().mean()))
    assert len({tuple(one.scores.flatten().tolist()) for _, one in by_hand}) == 4  # the guesses differ


@pytest.mark.parametrize(
    ("text", "message"),
    [("randopt:n=0", "n is 0"), ("randopt:n=2:best=3", "best is 3"), ("randopt:sigma=0", "sigma is 0")],
)
def test_values_of_randopt_that_have_no_meaning(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_randopt_counts_its_forward_passes(tmp_path):
    final = final_row(tmp_path, "randopt:n=3:best=2")
    assert final["method"] == "randopt:n=3:best=2" and len(final["guesses"]) == 2
    fewer = final_row(tmp_path / "other", "randopt:n=2:best=2")
    assert final["forward_passes"] > fewer["forward_passes"]
