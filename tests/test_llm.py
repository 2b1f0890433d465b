"""Fine-tuning: objective, tasks, the training loop, and what bad input meets."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from llm.__main__ import main
from llm.loop.loop import Loop
from llm.loop.train import train
from llm.model import loading
from llm.model.language_model import LanguageModel
from llm.objective import Encoded, Measured, Objective, calibrated_accuracy
from llm.options.train import TrainOptions
from llm.tasks import Example
from tests.interrupted import with_objective
from zobench import SGD, FlatSpace, ModuleSpace, derive, methods, query
from zobench.run.journal import read

pytestmark = pytest.mark.environment

SHARED = Path(__file__).parents[2] / "shared"
QUICK = {"steps": 4, "train": 40, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 2, "save": False}


@pytest.fixture(scope="module")
def tiny():
    return loading.load("tiny-opt")


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), **changes})


def rows(folder, kind):
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def random_model(kind, tokenizer):
    torch.manual_seed(0)
    sizes = {"vocab_size": 2000, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    if kind == "opt":
        return OPTForCausalLM(OPTConfig(**sizes, ffn_dim=32, max_position_embeddings=64, word_embed_proj_dim=8)).eval()
    return LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=32, num_key_value_heads=1)).eval()


def reference_scores(model, tokens, candidates):
    """One sequence at a time, full logits: the mean log-probability of each candidate's tokens."""
    scores = []
    for candidate in candidates:
        ids = torch.tensor([tokens + list(candidate)])
        logs = model(input_ids=ids).logits[0].double().log_softmax(-1)
        scores.append(sum(logs[len(tokens) - 1 + i, t] for i, t in enumerate(candidate)) / len(candidate))
    return torch.stack(scores)


@pytest.mark.parametrize("kind", ["opt", "llama"])
@pytest.mark.parametrize("candidates", [((5,), (9,), (77,)), ((5, 6), (9,), (5, 8, 11))])
@torch.no_grad()
def test_losses_are_those_of_one_example_at_a_time(kind, candidates, tiny):
    model = random_model(kind, tiny.tokenizer)
    objective = Objective(LanguageModel("random", model, tiny.tokenizer, ""), candidates, 32)
    batch = [Encoded([2, 17, 4, 90], 0), Encoded([2, 33], 2), Encoded([2, *range(100, 120)], 1)]
    wanted = torch.stack([reference_scores(model, row.tokens, candidates) for row in batch])
    labels = torch.tensor([row.label for row in batch])
    reference = torch.nn.functional.cross_entropy(wanted, labels, reduction="none")
    assert torch.allclose(objective.losses(batch).double(), reference, atol=1e-5)
    found = objective.scores(batch).double()
    assert torch.allclose(found - found[:, :1], wanted - wanted[:, :1], atol=1e-5)


def test_prompts_are_cut_from_the_left_and_keep_bos(tiny):
    objective = Objective.of(tiny, (" normal", " spam"), 12)
    text = "one two three four five six seven eight nine ten eleven twelve This message is"
    (row,) = objective.encode([Example(text, 1)])
    assert len(row.tokens) == 12 and row.tokens[0] == tiny.tokenizer.bos_token_id
    assert tiny.tokenizer.decode(row.tokens[1:]).endswith(" This message is")


def test_calibration_finds_a_threshold_and_centres_more_classes():
    margins = torch.tensor([-3.0, -2.0, -1.5, 4.0])  # labels 0 0 1 1: zero-shot gets 3 of 4, the best threshold all
    scores = torch.stack((torch.zeros(4), margins), 1)
    measured = Measured(0.0, 0.75, scores, torch.tensor([0, 0, 1, 1]))
    assert calibrated_accuracy(measured, measured) == 1.0
    biased = torch.eye(3) + torch.tensor([0.0, 5.0, 0.0])
    three = Measured(0.0, 1 / 3, biased, torch.arange(3))
    assert calibrated_accuracy(three, three) == 1.0


@pytest.mark.skipif(not (SHARED / "models/opt-tokenizer").is_dir(), reason="needs ../shared/models/opt-tokenizer")
def test_opts_own_tokenizer_keeps_its_bos(tmp_path):
    for file in ("vocab.json", "merges.txt"):
        (tmp_path / file).write_bytes((SHARED / "models/opt-tokenizer" / file).read_bytes())
    sizes = {"hidden_size": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    OPTForCausalLM(OPTConfig(**sizes, word_embed_proj_dim=16)).save_pretrained(tmp_path)
    loaded = loading.load(str(tmp_path))
    assert loaded.tokenizer("Hello world")["input_ids"] == [2, 31414, 232]
    loading.save(loaded, tmp_path / "again")
    assert loading.load(str(tmp_path / "again")).tokenizer("Hello world")["input_ids"] == [2, 31414, 232]


@pytest.mark.parametrize(
    "method", ["mezo", "kerzoo", "forward", "richardson", "coordinate", "mezo:n=3", "sgd", "adamw"]
)
def test_every_method_trains_and_counts_its_passes(method, tmp_path):
    assert Loop.of(options(tmp_path, method=method, lr=1e-4)).go()["status"] == "ok"
    (final,) = rows(tmp_path / "run", "final")
    a_step = {"forward": 2, "richardson": 4, "mezo:n=3": 6, "sgd": 1, "adamw": 1}.get(method, 2)
    assert (final["step"], final["forward_passes"]) == (4, 4 * a_step)
    assert final["backward_passes"] == (4 if method in ("sgd", "adamw") else 0)
    evaluations = rows(tmp_path / "run", "evaluation")
    assert [row["step"] for row in evaluations] == [0, 2, 4] and evaluations[0]["train_loss"] is None
    assert [row["name"] for row in rows(tmp_path / "run", "baseline")] == [
        "chance",
        "zero-shot",
        "calibrated zero-shot",
    ]
    assert final["status"] == "ok" and 0 <= final["test_accuracy"] <= 1


def test_zeroth_order_steps_learn(tmp_path):
    session = Loop.of(options(tmp_path, steps=60, lr=3e-4, train=100, batch=16, dev=60, eval_every=60))
    session.go()
    before, after = (row["dev_loss"] for row in rows(tmp_path / "run", "evaluation"))
    assert after < before - 0.05


def test_methods_see_the_same_minibatches_and_directions(tmp_path):
    runs = {}
    for method in ("mezo", "kerzoo"):
        session = Loop.of(options(tmp_path, method=method, out=str(tmp_path / method)))
        batches = [session.context.minibatch(step) for step in range(3)]
        session.go()
        runs[method] = batches, [record.key for record in read(tmp_path / method / "journal.bin").records]
        assert len(runs[method][1]) == 4
    assert runs["mezo"] == runs["kerzoo"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_interrupted_run_continues_to_the_same_weights(dtype, tmp_path):
    def options(tmp_path, out, **changes):
        return TrainOptions(**{**QUICK, **changes, "dtype": dtype, "eval_every": 4, "out": out})

    whole = Loop.of(options(tmp_path, steps=6, lr=1e-4, out=str(tmp_path / "whole")))
    whole.go()
    part = Loop.of(options(tmp_path, steps=6, lr=1e-4, out=str(tmp_path / "part")))
    take = part.stepper.step

    def stop_at_three(*arguments):
        if part.stepper.steps == 3:
            raise KeyboardInterrupt
        return take(*arguments)

    part.stepper.step = stop_at_three
    with pytest.raises(KeyboardInterrupt):
        part.go()
    resumed = Loop.of(options(tmp_path, steps=6, lr=1e-4, out=str(tmp_path / "part")))
    resumed.go()
    assert [row["step"] for row in rows(tmp_path / "part", "step")] == list(range(6))
    one, other = (s.stepper.space.vector() for s in (whole, resumed))
    assert torch.equal(one, other)
    assert rows(tmp_path / "part", "final")[0]["forward_passes"] == 12
    assert train(options(tmp_path, steps=6, lr=1e-4, out=str(tmp_path / "part")))["step"] == 6
    assert len(rows(tmp_path / "part", "final")) == 1
    one, other = (rows(tmp_path / name, "evaluation")[-1] for name in ("whole", "part"))
    assert one["train_loss"] == other["train_loss"]


def test_a_loss_that_turns_nan_is_a_step_skipped(tmp_path):
    session = Loop.of(options(tmp_path, lr=1e-4))
    measure, calls = session.context.objective.__class__.losses, []

    class Failing(Objective):
        def losses(self, batch):
            calls.append(1)
            return measure(self, batch) * (math.nan if len(calls) == 4 else 1)

    with_objective(session, Failing(*session.context.objective.__dict__.values()))
    start = session.stepper.space.vector()
    session.go()
    (skipped,) = rows(tmp_path / "run", "skipped")
    (final,) = rows(tmp_path / "run", "final")
    assert skipped["step"] == 1 and "nan" in skipped["reason"] and skipped["train_loss"] is None
    assert (final["status"], final["step"], final["skipped"]) == ("ok", 4, 1)
    assert [row["step"] for row in rows(tmp_path / "run", "step")] == [0, 2, 3]
    moved = session.stepper.space.vector() - start
    assert 0 < float(moved.norm() / start.norm()) < 0.1  # three steps


def test_destroyed_weights_are_no_accuracy(tmp_path):
    session = Loop.of(options(tmp_path, lr=1e30, steps=1, select="last"))
    session.go()
    (final,) = rows(tmp_path / "run", "final")
    assert final["status"] == "diverged" and final["test_accuracy"] is None and final["test_loss"] is None


def test_any_other_failure_is_a_row_too_and_baselines_torn_by_a_kill_are_completed(tmp_path):
    session = Loop.of(options(tmp_path))

    def fail(*_):
        raise RuntimeError("out of memory")

    session.stepper.step = fail
    with pytest.raises(RuntimeError, match="out of memory"):
        session.go()
    assert rows(tmp_path / "run", "failure")[0]["reason"] == "RuntimeError: out of memory"
    file = tmp_path / "run/rows.jsonl"
    file.write_text(file.read_text().splitlines(keepends=True)[0])
    Loop.of(options(tmp_path)).go()
    assert [row["name"] for row in rows(tmp_path / "run", "baseline")] == [
        "chance",
        "zero-shot",
        "calibrated zero-shot",
    ]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--methods", "mezo,kerzo"], "Did you mean 'kerzoo'"),
        (["--methods", "mezo,sgd:momentum=1"], "no options of its own"),
        (["--rates", ""], "--rates"),
        (["--evaluations", "0"], "evaluations is 0"),
        (["--forward-passes", "1"], "not enough for one step"),
    ],
)
def test_a_study_is_checked_as_a_whole_before_its_first_run(argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["study", *argv, "--out", str(tmp_path / "s")])
    assert message in capsys.readouterr().err and not (tmp_path / "s").exists()


def test_the_tuned_weights_are_kept_and_load_again(tmp_path):
    session = Loop.of(options(tmp_path, save=True, lr=1e-4))
    session.go()
    again = ModuleSpace(loading.load(str(tmp_path / "run/model")).model)
    assert torch.equal(again.vector(), session.stepper.space.vector())


def test_a_module_and_a_flat_vector_give_the_same_combination(tiny):
    """The same estimator object on the language model and on its parameters as one vector, loss for loss."""
    model = loading.load("tiny-opt", dtype="float64").model
    space, estimator = ModuleSpace(model), methods.make("kerzoo", epsilon=1e-3, n=2)
    objective = Objective(LanguageModel("t", model, tiny.tokenizer, ""), ((5,), (9,)), 16)
    batch = [Encoded([2, 17, 4, 90], 0), Encoded([2, 33, 8, 1], 1)]
    start = space.vector()

    def at(points):
        flat = []
        for point in points.reshape(-1, space.layout.dim):
            torch.nn.utils.vector_to_parameters(point, model.parameters())
            flat.append(objective.losses(batch).double().mean().detach())
        torch.nn.utils.vector_to_parameters(start, model.parameters())
        return torch.stack(flat).reshape(points.shape[:-1])

    assert torch.equal(start, torch.nn.utils.parameters_to_vector(model.parameters()))
    vector = FlatSpace(start.clone(), space.layout)
    dense = query(vector, estimator, at, 3, ()).gradient
    moved = query(space := ModuleSpace(model), estimator, lambda: objective.losses(batch), 3, ()).gradient
    assert torch.allclose(dense.terms[0].coefficients, moved.terms[0].coefficients, rtol=1e-4)
    SGD(1e-3).apply_(space, dense, 0)
    SGD(1e-3).apply_(vector, dense, 0)
    assert torch.allclose(space.vector(), vector.x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", ["mezo", "kerzoo"])
def test_a_step_of_zero_learning_rate_restores_float32_weights(method, tiny):
    space = ModuleSpace(loading.load("tiny-opt").model)
    objective = Objective.of(LanguageModel("t", space.module, tiny.tokenizer, ""), (" normal", " spam"), 24)
    batch = objective.encode([Example("Free entry, call now! This message is", 1)])
    start = space.vector()
    told = query(space, methods.make(method), lambda: objective.losses(batch), derive("zero"), ())
    SGD(0.0).apply_(space, told.gradient, 0)
    assert space.sweeps == 3
    assert float((space.vector() - start).norm() / start.norm()) < 1e-7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "spma"}, "Did you mean 'spam'"),
        ({"method": "kerzo"}, "Did you mean 'kerzoo'"),
        ({"method": "mezo:nn=2"}, "Did you mean 'n'"),
        ({"dtype": "float8"}, "unknown dtype"),
        ({"device": "cuda:99"}, "use --device cpu"),
        ({"model": "./nowhere"}, "no such folder"),
        ({"model": "nowhere.gguf"}, "no such file"),
        ({"model": "tiny-optt"}, "known names: tiny-opt"),
        ({"task": "sst2", "data": "nowhere"}, "train.tsv: no such file"),
        ({"epsilon": 0.0}, "epsilon is 0"),
        ({"epsilon": 1e-6, "dtype": "bfloat16"}, "below the resolution"),
        ({"train": 4000}, "training and development rows of each label, but"),
        ({"test": 0}, "each split needs at least one example"),
        ({"batch": 41}, "batch is 41"),
        ({"steps": 0}, "steps 0"),
        ({"max_tokens": 400}, "tokens in all"),
        ({"lr": -1.0}, "lr is -1.0: give 0 or a positive number"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Loop.of(options(tmp_path, **changes))
    assert not (tmp_path / "run").exists()


def test_candidates_that_cannot_be_scored_are_refused(tiny):
    with pytest.raises(ValueError, match="tokenises to nothing"):
        Objective.of(tiny, (" spam", ""), 16)
    with pytest.raises(ValueError, match="not distinct"):
        Objective.of(tiny, (" spam", " spam"), 16)
    with pytest.raises(ValueError, match="empty"):
        Objective.of(tiny, (" spam", " normal"), 16).encode([])


def test_weights_that_are_nan_are_refused_at_the_start(tmp_path, tiny):
    broken = loading.load("tiny-opt")
    with torch.no_grad():
        broken.model.model.decoder.final_layer_norm.weight.fill_(math.nan)
    loading.save(broken, tmp_path / "broken")
    with pytest.raises(ValueError, match="the loss is nan before the first step"):
        Loop.of(options(tmp_path, model=str(tmp_path / "broken")))


def test_dropout_left_on_is_refused(tmp_path, monkeypatch):
    load = loading.load

    def left_on(*arguments):
        loaded = load(*arguments)
        loaded.model.train()
        return loaded

    monkeypatch.setattr(loading, "load", left_on)
    with pytest.raises(ValueError, match=r"dropout left on \(call model\.eval\(\)\)"):
        Loop.of(options(tmp_path))


def test_the_command_line(tmp_path, capsys):
    quick = ["--steps", "2", "--train", "20", "--dev", "10", "--test", "10", "--batch", "4", "--max-tokens", "16"]
    assert main(["train", *quick, "--method", "kerzoo", "--dtype", "bfloat16", "--out", str(tmp_path / "r")]) == 0
    assert main(["evaluate", "--model", str(tmp_path / "r/model"), "--train", "20", "--dev", "10", "--test", "10"]) == 0
    assert "test_accuracy" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--task", "spma"])
    assert stopped.value.code == 2 and "Did you mean 'spam'" in capsys.readouterr().err


def test_a_study_tunes_on_other_seeds_and_does_not_repeat(tmp_path, capsys):
    command = ["study", "--methods", "mezo,sgd", "--forward-passes", "4", "--backward-passes", "2", "--seeds", "2"]
    command += [
        "--rates",
        "1e-5,1e-4",
        "--first-order-rates",
        "1e-3,1e-2",
        "--train",
        "20",
        "--dev",
        "10",
        "--test",
        "10",
    ]
    command += ["--batch", "4", "--max-tokens", "16", "--out", str(tmp_path)]
    assert main(command) == 0
    tuned, final = (sorted(p.name for p in (tmp_path / part).iterdir()) for part in ("tune", "seeds"))
    assert len(tuned) == 4 and all(name.endswith("seed-1") for name in tuned) and len(final) == 4
    assert not any("test_accuracy" in row for name in tuned for row in rows(tmp_path / "tune" / name, "final"))
    assert all("test_accuracy" in row for name in final for row in rows(tmp_path / "seeds" / name, "final"))
    assert main(command) == 0
    assert len(rows(tmp_path / "seeds" / final[0], "final")) == 1
