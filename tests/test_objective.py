"""Objectives by name, what they minimise, and what evaluations make of answers."""

import copy
import json
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from test_host_reads import reads_of
from tiny_models import language_model, reference_score

from llm import tasks
from llm.__main__ import main
from llm.loop.loop import Loop
from llm.model import logits
from llm.model.generation import greedy
from llm.model.logits import padding
from llm.objective import (
    AnswerObjective,
    Encoded,
    Measured,
    MetricObjective,
    Objective,
    calibrated_accuracy,
    candidate_scores,
    chance_accuracy,
    choose,
    metrics,
    scoring,
)
from llm.objective.measured import parts, right_answers
from llm.objective.touched import touched_rows
from llm.options.train import TrainOptions
from llm.tasks import Example
from zobench import Combination, ModuleSpace, Term, methods, query
from zobench.naming import UnknownNameError

pytestmark = pytest.mark.usefixtures("one_thread")

CHOSEN = [
    Example("the quick brown fox", 1, (" jumps over the dog", " is lazy", " great")),
    Example("It was", 0, (" great and terrible", " spam")),
    Example("Was it spam?", 2, (" Yes", " No. It was great", " Maybe it was", " no")),
    Example("a film that is", 1, (" terrible", " the dog")),
]
WRITTEN = [
    Example("the quick brown", 0, (" fox\n",), ("fox", "the fox")),
    Example("Was it spam?\n", 0, (" Maybe not\n",), ("Maybe not",)),
    Example("a film that is great. It was", 0, (" terrible\n",), ("terrible",)),
]


def task(candidates=None, objective="classification", metric="accuracy"):
    return SimpleNamespace(name="mine", candidates=candidates, objective=objective, metric=metric)


@pytest.fixture(scope="module")
def opt():
    return language_model("opt")


def made(name, of, opt, tokens=32):
    return choose(name, of)(opt, max_tokens=tokens, bos=None)


def reference_scores(opt, batch):
    with torch.no_grad():
        return [torch.stack([reference_score(opt.model, row.tokens, c) for c in row.candidates]) for row in batch]


def word_count(answers, examples):
    """Per-example losses as a user would write them."""
    return [len(text.split()) + example.label for text, example in zip(answers, examples, strict=True)]


def only_one(answers, examples):
    return [1.0]


def test_names_choose_and_the_task_has_a_say():
    assert choose("task", task()).func.__self__ is Objective
    assert choose("task", task(objective="language-model")).func.__self__ is AnswerObjective
    assert choose("classification", task(objective="language-model")).func.__self__ is Objective
    with pytest.raises(UnknownNameError, match="Did you mean 'exact-match'"):
        choose("exact-matc", task())
    for name, message in (
        ("nowhere.at_all:f", "No module named"),
        ("math:nothing", "has no function 'nothing'"),
        ("math:pi", "has no function 'pi'"),
        (":f", "give package.module:function"),
    ):
        with pytest.raises(ValueError, match=message):
            choose(name, task())
    with pytest.raises(ValueError, match="give --objective f1"):
        choose("accuracy", task(metric="f1"))


def test_classification_with_candidates_of_each_example(opt):
    objective = made("classification", task(), opt)
    batch = objective.encode(CHOSEN)
    wanted = reference_scores(opt, batch)
    losses = torch.stack([-row.log_softmax(0)[e.label] for row, e in zip(wanted, CHOSEN, strict=True)])
    with torch.no_grad():
        assert torch.allclose(objective.losses(batch).double(), losses, atol=1e-5)
    measured = objective.measure(batch, batch_size=2)
    right = [int(row.argmax()) == e.label for row, e in zip(wanted, CHOSEN, strict=True)]
    assert measured.loss == pytest.approx(float(losses.mean()), abs=1e-5)
    assert measured.accuracy == pytest.approx(sum(right) / 4) and measured.scores.shape == (4, 4)
    assert chance_accuracy(measured, measured) == pytest.approx((1 / 3 + 1 / 2 + 1 / 4 + 1 / 2) / 4)
    assert math.isnan(calibrated_accuracy(measured, measured))  # no column means the same thing twice


def test_candidates_of_two_tokens_have_the_mean_of_both(opt):
    batch = made("classification", task(), opt).encode(
        [Example("Was it", 0, ("qz", "zq")), Example("x", 0, ("xq", "qx"))]
    )
    assert {len(candidate) for row in batch for candidate in row.candidates} == {2}
    found = candidate_scores(opt, [row.tokens for row in batch], [row.candidates for row in batch])
    assert torch.allclose(found.double(), torch.stack(reference_scores(opt, batch)), atol=1e-5)


def test_scores_without_common_labels_are_not_calibrated():
    """Two candidates each, of their own; and common ones that stand for answers, which f1 judges."""
    scores, labels = torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([1, 0])
    assert calibrated_accuracy(*[Measured(0.0, 1.0, scores, labels)] * 2) == 1.0
    for judged in (Measured(0.0, 1.0, scores, labels, common=False), Measured(0.0, 1.0, scores, labels, "f1")):
        assert math.isnan(calibrated_accuracy(judged, judged))


def test_gradients_flow_through_uneven_candidates(opt):
    objective = made("classification", task(), opt)
    objective.losses(objective.encode(CHOSEN)).mean().backward()
    gradients = [p.grad for p in opt.model.parameters() if p.grad is not None]
    assert gradients and all(bool(g.isfinite().all()) for g in gradients)
    opt.model.zero_grad(set_to_none=True)


def test_a_language_model_loss_is_of_the_right_answer_alone(opt):
    objective = made("language-model", task(), opt)
    batch = objective.encode(CHOSEN)
    wanted = reference_scores(opt, batch)
    losses = torch.stack([-row[e.label] for row, e in zip(wanted, CHOSEN, strict=True)])
    with torch.no_grad():
        assert torch.allclose(objective.losses(batch).double(), losses, atol=1e-5)
    measured = objective.measure(batch)
    assert measured.loss == pytest.approx(float(losses.mean()), abs=1e-5)
    assert measured.accuracy == made("classification", task(), opt).measure(batch).accuracy


def test_written_answers_are_judged_by_f1_and_exact_match(opt):
    objective = made("language-model", task(metric="f1"), opt, 64)
    batch = objective.encode(WRITTEN)
    texts = greedy(opt, [row.tokens for row in batch])
    measured = objective.measure(batch, batch_size=2)
    f1 = [metrics.f1(text, e.answers) for text, e in zip(texts, WRITTEN, strict=True)]
    assert measured.accuracy == pytest.approx(sum(f1) / 3) and measured.metric == "f1" and measured.scores is None
    assert measured.named("dev").keys() == {"metric", "dev_exact_match"}
    assert math.isnan(chance_accuracy(measured, measured)) and math.isnan(calibrated_accuracy(measured, measured))
    with pytest.raises(ValueError, match="give the task the metric f1"):
        made("language-model", task(), opt, 64).measure(batch)


def test_metrics_become_losses(opt, monkeypatch):
    batch = made("task", task(), opt).encode(CHOSEN)
    best = [int(row.argmax()) for row in reference_scores(opt, batch)]
    objective = made("accuracy", task(), opt)
    assert objective.losses(batch).tolist() == [float(k != e.label) for k, e in zip(best, CHOSEN, strict=True)]
    assert objective.measure(batch).loss == pytest.approx(1 - objective.measure(batch).accuracy)
    texts = [e.candidates[k] for k, e in zip(best, CHOSEN, strict=True)]
    f1 = [1 - metrics.f1(text, [e.candidates[e.label]]) for text, e in zip(texts, CHOSEN, strict=True)]
    assert made("f1", task(), opt).losses(batch).tolist() == pytest.approx(f1)
    own = made(f"{__name__}:word_count", task(), opt).losses(batch)
    assert own.tolist() == [len(text.split()) + e.label for text, e in zip(texts, CHOSEN, strict=True)]
    with pytest.raises(ValueError, match="for 4 answers"):
        made(f"{__name__}:only_one", task(), opt).losses(batch)


def test_written_answers_become_losses(opt, monkeypatch):
    said = ["the fox", None, "awful"]
    monkeypatch.setattr("llm.objective.answers.greedy", lambda model, prompts: said)
    objective = made("exact-match", task(metric="exact-match"), opt, 64)
    losses = objective.losses(objective.encode(WRITTEN)).tolist()
    assert losses[0] == 0 and math.isnan(losses[1]) and losses[2] == 1


def test_where_candidates_stand_for_answers_those_are_judged(opt):
    """As in ReCoRD: the candidate is the query with an entity filled in, and several entities are right."""
    fields = {"prompt": "the quick brown fox\n-", "label": 0, "choices": ("fox", "dog", "the lazy dog")}
    queries = tuple(f" It was {name} that jumps" for name in fields["choices"])
    example = SimpleNamespace(**fields, candidates=queries, answers=("fox", "lazy dog"))
    objective = made("task", task(objective="language-model", metric="f1"), opt)
    measured = objective.measure(objective.encode([example]))
    best = fields["choices"][int(measured.scores[0].argmax())]
    wanted = {"fox": (1, 1), "dog": (2 / 3, 0), "the lazy dog": (1, 1)}[best]
    assert (measured.accuracy, measured.others["exact-match"]) == pytest.approx(wanted)


def test_more_than_two_common_candidates_have_a_macro_f1(opt):
    objective = Objective.of(opt, (" Yes", " No", " Maybe"), 32)
    examples = [Example(f"{word} was it?", i % 3) for i, word in enumerate(["a", "the", "film", "fox", "dog"])]
    measured = objective.measure(objective.encode(examples))
    predicted = measured.scores.argmax(1)
    assert measured.others == {"macro-f1": metrics.macro_f1(predicted, measured.labels)}
    assert measured.named("test") == {"test_macro_f1": measured.others["macro-f1"]}


@pytest.mark.parametrize(
    ("name", "example", "message"),
    [
        ("classification", WRITTEN[0], "give --objective language-model"),
        ("classification", Example("a", 2, (" b", " c")), "label 2 of example 'a' is out of range"),
        ("classification", Example("a", 0, (" b", " b")), "not distinct"),
        ("language-model", Example("a", 0, ("",)), "tokenises to nothing"),
        ("language-model", Example("a", 0, ()), "has 0 candidates"),
        ("language-model", Example("a", 0, (" b" * 200,)), "reads 2 to 128 tokens"),
    ],
)
def test_examples_that_cannot_be_read_are_refused(name, example, message, opt):
    with pytest.raises(ValueError, match=message):
        made(name, task(), opt).encode([example])


def test_room_is_kept_for_what_is_written(opt):
    with pytest.raises(ValueError, match="max_tokens is 100 and up to 50 follow"):
        made("language-model", task(metric="f1"), opt, 100).encode(WRITTEN)


def test_a_prompt_without_a_token_is_refused():
    from tiny_models import byte_level

    bare = language_model("gpt2", byte_level(bos=False))
    with pytest.raises(ValueError, match="tokenises to nothing, and this tokenizer adds no first token"):
        Objective.of(bare, (" great", " spam"), 16).encode([Example("", 0)])


def test_examples_of_an_evaluation_are_batched_by_length_and_size():
    lengths = [5, 40000, 3, 20000, 4, 30000]
    found = parts(lengths, lengths, 2)
    assert found == [[2, 4], [0], [3], [5], [1]]  # two short ones; what would exceed the bound is alone
    assert parts([1] * 5, [1] * 5, 64) == [[0, 1, 2, 3, 4]]


def session(tmp_path, **changes):
    quick = {"steps": 2, "train": 8, "dev": 4, "test": 4, "max_tokens": 24, "batch": 4, "eval_every": 2, "save": False}
    return Loop.of(TrainOptions(**{**quick, "out": str(tmp_path / "run"), **changes}))


def rows(tmp_path, kind):
    found = [json.loads(line) for line in (tmp_path / "run/rows.jsonl").read_text().splitlines()]
    return [row for row in found if row["kind"] == kind]


def test_a_loss_without_gradient_trains_by_forward_passes_alone(tmp_path):
    with pytest.raises(ValueError, match="objective accuracy has no gradient for sgd"):
        session(tmp_path, objective="accuracy", method="sgd")
    session(tmp_path, objective="accuracy").go()
    (final,) = rows(tmp_path, "final")
    assert final["test_loss"] == pytest.approx(1 - final["test_accuracy"]) and final["forward_passes"] == 4


def test_written_answers_train_and_name_their_metric(tmp_path, monkeypatch):
    examples = WRITTEN * 2
    monkeypatch.setattr(tasks, "find", lambda name: task(None, "language-model", "f1"))
    monkeypatch.setattr(tasks, "split", lambda *arguments: tasks.Split(examples, examples[:2], examples[:3]))
    started = session(tmp_path, task="mine", train=6, lr=1e-5)
    started.go()
    (final,) = rows(tmp_path, "final")
    assert final["metric"] == "f1" and 0 <= final["test_accuracy"] <= 1 and "test_exact_match" in final
    chance, zero, _ = rows(tmp_path, "baseline")
    assert chance["test_accuracy"] is None and zero["test_accuracy"] is not None
    assert isinstance(started.context.objective, AnswerObjective) and not isinstance(
        started.context.objective, MetricObjective
    )


def test_the_command_line_takes_an_objective_and_a_first_token(capsys):
    quick = ["--train", "20", "--dev", "10", "--test", "10"]
    found = {}
    for name, extra in (("own", []), ("mezo", ["--bos", "0"]), ("lm", ["--objective", "language-model"])):
        assert main(["evaluate", *quick, *extra]) == 0
        found[name] = capsys.readouterr().out
    assert len(set(found.values())) == 3
    with pytest.raises(SystemExit):
        main(["evaluate", *quick, "--objective", "accurac"])
    assert "Did you mean 'accuracy'" in capsys.readouterr().err


def test_a_batch_of_tokens_alone_still_has_losses(opt):
    """What benches do: no text, candidates common to all."""
    objective = Objective(opt, ((5,), (9,)), 16)
    losses = objective.losses([Encoded([2, 17, 4], 0), Encoded([2, 33], 1)])
    assert losses.shape == (2,) and bool(losses.isfinite().all())


def test_an_evaluation_batch_holds_what_its_packed_rows_have_in_tokens(opt, monkeypatch):
    """A prompt and all tokens of its candidates but each one's last, which nothing reads."""
    objective, sizes = made("classification", task(), opt), []
    batch = objective.encode([CHOSEN[0]] * 4)
    packed = len(batch[0].tokens) + sum(len(c) - 1 for c in objective.options(batch[0]))
    judge = Objective.judge
    monkeypatch.setattr(Objective, "judge", lambda self, rows: sizes.append(len(rows)) or judge(self, rows))
    for room, wanted in ((2 * packed - 1, [1, 1, 1, 1]), (2 * packed, [2, 2]), (3 * packed, [3, 1])):
        monkeypatch.setitem(parts.__globals__, "BATCH_TOKENS", room)
        sizes.clear()
        objective.measure(batch)
        assert sizes == wanted


def test_the_right_answer_is_what_the_right_candidate_stands_for():
    assert right_answers(Example("a", 1, ("x", "y", "z"))) == ("y",) and right_answers(None) == ()
    assert right_answers(Example("a", 2, ("x", "y", "z"))) == ("z",)
    assert right_answers(Example("a", 0, ("x",), ("p", "q"))) == ("p", "q")


@pytest.mark.parametrize("tied", [True, False])
def test_rows_that_a_minibatch_touches_are_those_with_a_gradient(tied):
    """And the row of padding, which is looked up and left out of the loss."""
    mine = language_model("llama", tie_word_embeddings=tied)
    objective = made("classification", task(("y", "n")), mine)
    batch = objective.encode([Example("the quick brown", 0), Example("Was it spam?", 1)])
    objective.losses(batch).sum().backward()
    inputs, head = (get().weight for get in (mine.model.get_input_embeddings, mine.model.get_output_embeddings))
    pad = {padding(mine)}
    wanted = {id(head): _rows_with_gradient(head)} | {id(inputs): sorted(pad | set(_rows_with_gradient(inputs)))}
    names = {name: wanted[id(p)] for name, p in mine.model.named_parameters() if id(p) in wanted}
    assert len(names) == 2 - tied and touched_rows(objective, batch) == names


def _rows_with_gradient(weight):
    return weight.grad.abs().sum(1).nonzero()[:, 0].tolist()


EXACT = {
    "classification": lambda scores, row: torch.logsumexp(scores, 0) - scores[row.label],
    "language-model": lambda scores, row: -scores[row.label],
}
LOOKED, RATE = 1e-3, 1e-2


def exact_step(model, batch, loss):
    """A step of MeZO as it is defined: the model moved to each end, and every text read by itself, in float64."""
    space, plan = ModuleSpace(model), methods.make("mezo", epsilon=LOOKED).ask(3, ())
    u = Combination((Term(plan.law, plan.key, torch.ones(1, dtype=torch.float64)),))
    ends = []
    for sign in (1, -1):
        space.step_(u, sign * LOOKED)
        scores = [torch.stack([reference_score(model, row.tokens, c) for c in row.candidates]) for row in batch]
        ends.append(float(torch.stack([loss(*each) for each in zip(scores, batch, strict=True)]).mean()))
        space.step_(u, -sign * LOOKED)
    space.step_(u, -RATE * (ends[0] - ends[1]) / (2 * LOOKED))
    return space.vector()


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("rule", ["wide", "float32"])
def test_a_step_of_a_float64_model_is_that_of_its_exact_loop(name, rule, monkeypatch):
    if rule == "float32":
        monkeypatch.setattr(logits, "wide", torch.Tensor.float)
    opt = language_model("opt")
    opt.model.double()
    minimised = made(name, task(), opt)
    batch, space = minimised.encode(CHOSEN), ModuleSpace(opt.model)
    expected = exact_step(copy.deepcopy(opt.model), batch, EXACT[name])
    told = query(space, methods.make("mezo", epsilon=LOOKED), lambda: minimised.losses(batch), 3, ())
    space.step_(told.gradient, -RATE)
    assert (float((space.vector() - expected).abs().max()) < 1e-12) == (rule == "wide")
    if rule == "wide":
        assert minimised.measure(batch).scores.dtype == torch.float64


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("kind", ["opt", "bloom"])  # the head alone, and the model's own forward
def test_losses_ask_a_device_for_nothing_that_the_forward_does_not(name, kind, monkeypatch):
    monkeypatch.setattr(logits, "CHUNK", 1000)
    asked = language_model(kind)
    minimised = made(name, task(), asked)
    batch = minimised.encode(CHOSEN)
    inputs = logits.padded(asked, [row.tokens for row in batch])
    with torch.no_grad():
        found, bare = (
            Counter(reads_of(work)) for work in (lambda: minimised.losses(batch), lambda: asked.model(**inputs))
        )
    assert found <= bare


@torch.no_grad()
def test_scores_of_single_tokens_are_logits_unless_they_are_to_be_normalised(opt):
    prompts, candidates = [[5, 6, 7]], [[(8,), (9,)]]
    raw, normalised = (scoring.candidate_scores(opt, prompts, candidates, asked) for asked in (False, True))
    assert torch.equal(scoring.candidate_scores(opt, prompts, candidates), raw)
    assert float((raw - normalised).abs().min()) > 0.1 and float(normalised.max()) < 0
    torch.testing.assert_close(raw[0, 0] - raw[0, 1], normalised[0, 0] - normalised[0, 1], rtol=1e-4, atol=1e-5)
