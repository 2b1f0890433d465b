"""How prompts are read: what is cut and told, first tokens, padding, and ends that belong to what follows."""

import json

import pytest
import tiny_models
import torch

from llm import tasks
from llm.__main__ import main
from llm.baselines.in_context import fitted
from llm.loop.train import train
from llm.model import loading
from llm.model.logits import padding
from llm.objective import AnswerObjective, Encoder, Objective, candidate_scores, choose, data_notes
from llm.options.train import TrainOptions
from llm.tasks import Example, Item, Pools, Task
from llm.tasks.checks import notes, settled

pytestmark = pytest.mark.usefixtures("one_thread")

WORD = "the quick brown fox jumps over the lazy dog. "
LABELS = (" great", " terrible")


@pytest.fixture(scope="module")
def opt():
    return loading.load("tiny-opt")


# Cuts


def test_a_prompt_is_read_whole_unless_the_model_cannot(opt):
    objective = Objective.of(opt, LABELS)
    longest = max(map(len, objective.candidates))
    short, long = objective.encode([Example(WORD * 8 + "It was", 0), Example(WORD * 40 + "It was", 1)])
    assert len(short.tokens) == short.whole > 64
    assert len(long.tokens) == 256 - longest < long.whole and long.tokens[0] == short.tokens[0] == 2
    assert torch.isfinite(objective.losses([short, long])).all()
    (note,) = data_notes(objective, {"train": [short], "test": [long], "dev": []})
    assert note.startswith(f"prompts cut from the left to {256 - longest} tokens: 1 of 2 (0 of 1 train, 1 of 1 test)")
    assert f"the longest has {long.whole} tokens: tiny-opt sets the limit" in note
    assert data_notes(objective, {"train": [short]}) == []


def test_room_is_left_for_what_follows_each_prompt(opt):
    objective = AnswerObjective.of(opt, None)
    rows = objective.encode([Example(WORD * 40, 0, (text,)) for text in (" yes", " yes" * 80)])
    follows = len(rows[1].candidates[0])
    assert [len(row.tokens) for row in rows] == [256 - 50, 256 - follows] and follows > 50
    assert torch.isfinite(objective.losses(rows)).all()
    assert "1 of 2 answers have more than the 50 tokens that are generated" in data_notes(objective, {"test": rows})[1]
    with pytest.raises(ValueError, match="tokens follow a prompt, but tiny-opt reads 256 tokens in all"):
        objective.encode([Example("It was", 0, (" yes" * 300,))])


def test_a_model_without_a_limit_reads_everything():
    made = tiny_models.language_model("bloom")
    made.model.config.max_position_embeddings = None
    (row,) = Objective.of(made, LABELS).encode([Example(WORD * 90, 0)])
    assert len(row.tokens) == row.whole > 900


def test_demonstrations_fill_what_the_model_reads(opt):
    objective = Objective.of(opt, LABELS)
    rows = objective.encode([Example("It was", 0, LABELS)])
    (count,) = fitted(objective, [WORD.strip()] * 100, rows)
    lengths = [
        len(ids)
        for ids in objective.encoder.whole(["\n\n".join([WORD.strip()] * n + ["It was"]) for n in (count, count + 1)])
    ]
    assert lengths[0] <= objective.room(rows[0]) < lengths[1]


@pytest.mark.parametrize("given", [None, 16])
def test_a_run_tells_what_is_cut_in_a_row(tmp_path, given):
    sizes = {"train": 20, "dev": 10, "test": 10, "batch": 4, "steps": 1, "save": False, "baselines": False}
    train(TrainOptions(**sizes, max_tokens=given, out=str(tmp_path / "run")))
    rows = [json.loads(line) for line in (tmp_path / "run/rows.jsonl").read_text().splitlines()]
    cut = [row["note"] for row in rows if row["kind"] == "note" and "cut from the left" in row["note"]]
    assert ("max_tokens = 16" in (tmp_path / "run/config.toml").read_text()) == (given == 16)
    assert [note.partition(" (")[0] for note in cut] == (
        [] if given is None else ["prompts cut from the left to 16 tokens: 37 of 40"]
    )


def test_an_evaluation_tells_what_is_cut(capsys):
    main(["evaluate", "--train", "4", "--dev", "4", "--test", "4", "--max-tokens", "8"])
    assert "prompts cut from the left to 8 tokens: 12 of 12" in capsys.readouterr().out


# Tokens


@pytest.mark.parametrize(
    "tokenizer", [tiny_models.byte_level(), tiny_models.byte_level(eos=True), tiny_models.metaspace()]
)
def test_a_first_token_that_a_prompt_has_is_not_added_again(tokenizer):
    bare, rendered = Encoder(tokenizer).prompts([WORD, tokenizer.bos_token + WORD])
    assert bare[0] == tokenizer.bos_token_id and rendered.count(tokenizer.bos_token_id) == 1
    assert Encoder(tokenizer).prompts([tokenizer.bos_token * 2 + "It"])[0].count(tokenizer.bos_token_id) == 2
    assert Encoder(tokenizer, bos=0).prompts([tokenizer.bos_token + "It"])[0].count(0) == 1
    assert Encoder(tokenizer).prompts([""]) == [[tokenizer.bos_token_id]]


def test_ends_of_a_masked_prompt_are_not_added_again():
    tokenizer = tiny_models.masked_tokenizer()
    bare, rendered = Encoder(tokenizer, masked=True).prompts(["a<mask> film", "<s>a<mask> film</s>"])
    assert bare == rendered


@pytest.mark.parametrize("kind", ["opt", "llama", "roberta"])
@torch.no_grad()
def test_padding_beyond_the_vocabulary_is_another_token(kind):
    made = tiny_models.language_model(kind)
    rows = [[2, 17, 4], [2, 7, 9, 12, 30]]
    rows = [[*row, made.tokenizer.mask_token_id] for row in rows] if made.masked else rows
    candidates = [[(5,), (9,)]] * 2 if made.masked else [[(5, 6), (9,)]] * 2
    wanted = candidate_scores(made, rows, candidates)
    made.tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert made.tokenizer.pad_token_id >= tiny_models.VOCABULARY > padding(made)
    assert torch.allclose(candidate_scores(made, rows, candidates), wanted, atol=1e-6)


def test_a_token_beyond_the_vocabulary_is_refused():
    made = tiny_models.language_model("opt")
    made.tokenizer.add_tokens(["<user>"])
    objective = Objective.of(made, LABELS, 32)
    with pytest.raises(ValueError, match=r"has the token '<user>' \(\d+\), but opt has embeddings of 300 tokens"):
        objective.encode([Example("<user> It was", 0)])
    with pytest.raises(ValueError, match="has the token '<user>'"):
        Objective.of(made, (" great", "<user>"), 32)


# Ends of prompts, labels, metrics


def pools(*examples):
    return Pools([Item(str(i), example) for i, example in enumerate(examples)], [])


def mine(**changes):
    return Task("mine", lambda folder: pools(), **changes)


@pytest.mark.parametrize("end", [" ", "\t", " \t ", "\u00a0"])
def test_blanks_at_the_end_of_a_prompt_go(end):
    (item,) = settled(mine(), pools(Example("It was" + end, 0, LABELS))).training
    assert item.example.prompt == "It was"


def test_line_breaks_and_tabs_that_stand_for_themselves_stay():
    kept = [
        Example("yes or no?\n", 0, ("Yes", "No")),
        Example("It was\t", 0, ("good", "bad")),
        Example("It\n", 0, LABELS),
    ]
    assert [item.example for item in settled(mine(), pools(*kept)).training] == kept


def test_a_space_that_belongs_to_the_continuations_is_refused():
    with pytest.raises(ValueError, match=r"'It was ' ends in a space.*put it in front of 'good'"):
        settled(mine(), pools(Example("It was ", 0, ("good", "bad"))))


def write(tmp_path, rows, labels, prompt="{text} {hint}", more=""):
    (tmp_path / "rows.csv").write_text("text,hint,label\n" + rows)
    (tmp_path / "t.toml").write_text(f'train = "rows.csv"\nprompt = "{prompt}"\n{more}\n{labels}')
    return tasks.find(str(tmp_path / "t.toml"))


def test_a_template_whose_last_columns_are_empty_ends_in_no_blank(tmp_path):
    rows = "".join(f"Row {i},{'' if i % 2 else 'It was'},{i % 2}\n" for i in range(40))
    for join in (" ", "\n"):
        prompt = f"{{text}}{join}{{hint}}".replace("\n", "\\n")
        task = write(tmp_path, rows, '[labels]\n0 = " bad"\n1 = " good"', prompt)
        prompts = {example.prompt for part in tasks.split(task, None, None, None, None, 0) for example in part}
        assert {"Row 1", f"Row 2{join}It was"} <= prompts and all(text == text.rstrip() for text in prompts)
    task = write(tmp_path, rows, 'answer = "label"')
    examples = [example for part in tasks.split(task, None, None, None, None, 0) for example in part]
    assert all(e.prompt == e.prompt.rstrip() and e.candidates[0].startswith(" ") for e in examples)


def test_a_missing_space_is_told_with_the_text_that_is_read():
    joined = [Example(f"It was{end}", 0, ("good", " bad")) for end in ("", ":", ".", "?", ")")]
    (note,) = notes(mine(), pools(*joined, Example("It was", 0, ("(A)", " (B)")), Example('"', 0, ("good", "bad"))), {})
    assert "of 6 of 7 examples" in note and "'It wasgood'" in note and "give ' good'" in note
    fine = [
        Example("电影很", 0, ("好", "坏")),
        Example("It was <mask>", 0, ("good", "bad")),
        Example("It was\n", 0, ("a", "b")),
        Example("It was", 0, (".", "!")),
    ]
    assert notes(mine(), pools(*fine), {}) == []


def test_a_blank_at_the_end_of_a_continuation_is_told():
    (note,) = notes(mine(), pools(Example("It was", 0, (" good ", " bad"))), {})
    assert "continuations end in a blank, which is scored with them: ' good '" in note
    assert notes(mine(), pools(Example("It was", 0, (" good\n", " bad"))), {}) == []


def test_answers_of_several_lines_are_told():
    many = [
        Example("q", 0, (" a\nb\n",), ("a\nb",)),
        Example("q", 0, (" a\n",), ("a\nb", "a")),
        Example("q", 0, (" a\n",), ("a\n",)),
    ]
    (note,) = notes(mine(objective="language-model", metric="f1"), pools(*many), {})
    assert "1 of 3 answers have several lines" in note


def test_labels_that_never_occur_are_told_with_counts():
    task = mine(candidates=LABELS)
    one, both = [Example("q", 1, LABELS)] * 12, [Example("q", i % 2, LABELS) for i in range(12)]
    found = notes(task, pools(), {"training": one, "dev": both, "test": one[:5]})
    assert found == ["mine: the training examples have no label 0 (' great'); they have 12 of label 1 (' terrible')"]
    own = [Example("q", 0, ("a", "b", "c"))] * 12
    assert "no label 1, label 2; they have 12 of label 0" in notes(mine(), pools(), {"test": own})[0]


def test_words_of_labels_are_no_metric(tmp_path):
    for metric in ("f1", "exact-match"):
        with pytest.raises(ValueError, match="the task has labels: give metric macro-f1"):
            mine(candidates=LABELS, metric=metric)
        with pytest.raises(ValueError, match="the task has labels: give metric macro-f1"):
            settled(mine(metric=metric), pools(Example("q", 0, LABELS)))
        with pytest.raises(ValueError, match="give --objective accuracy"):
            choose(metric, mine(candidates=LABELS))
    with pytest.raises(ValueError, match="the task has labels"):
        write(tmp_path, "a,,0\nb,,1\n", '[labels]\n0 = " bad"\n1 = " good"', "{text} It was", 'metric = "f1"')


def test_macro_f1_is_reported_with_the_f1_of_each_label(opt, capsys, tmp_path):
    """Scikit-learn's f1_score of [1, 0, 0, 0] for [1, 1, 0, 0]: 2/3 of label 1, 4/5 of label 0."""
    from llm.objective.measured import chance_accuracy, measured

    labels, scores = torch.tensor([1, 1, 0, 0]), torch.tensor([[0.0, 1], [1, 0], [1, 0], [1, 0]])
    examples = [Example("q", int(label), (" not spam", " spam")) for label in labels]
    found = measured("macro-f1", 0.5, labels, examples, scores=scores, common=True)
    assert found.accuracy == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found.named("test") == pytest.approx(
        {"metric": "macro-f1", "test_f1_of_not_spam": 0.8, "test_f1_of_spam": 2 / 3}
    )
    never = measured("macro-f1", 0.5, labels, examples, scores=torch.tensor([[1.0, 0]] * 4), common=True)
    assert never.others["f1-of-spam"] == 0.0 and never.accuracy == pytest.approx(1 / 3)
    assert chance_accuracy(never._replace(labels=torch.zeros(3)), found) == pytest.approx(1 / 3)
    broken = measured("macro-f1", 0.5, labels, examples, scores=scores.log(), common=True)
    assert broken.accuracy != broken.accuracy
