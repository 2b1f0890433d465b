"""The loop around the steps: which weights are selected, when a run stops, and that no interruption changes either."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from interrupted import gone
from sampled import diagonal
from torch import nn

from llm.__main__ import main
from llm.loop.loop import Loop
from llm.loop.selection import Selection
from llm.loop.train import train
from llm.model import loading
from llm.options.journal import main as journal
from llm.options.train import TrainOptions
from llm.run import checkpoint
from llm.run.check import check
from llm.run.folder import RunFolder
from llm.run.journal import rebuild
from zobench.run.journal import read

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = {"steps": 12, "train": 20, "dev": 10, "test": 10, "max_tokens": 24, "batch": 4, "eval_every": 3}
QUICK |= {"lr": 1.4e-3, "seed": 3}
"""Steps so large that the dev loss is least at step 3, of 4.8, 3.2, 7.6 and more, on every processor."""
WITHOUT_TIMES = ("evaluation", "final")


def options(tmp_path, **changes):
    return TrainOptions(**{**QUICK, "out": str(tmp_path / "run"), **changes})


def rows(folder, *kinds):
    lines = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    return [row for row in lines if row["kind"] in kinds]


def what_counts(folder):
    """The rows without times, and the weights that were saved."""
    kept = [{k: v for k, v in row.items() if k not in ("seconds", "peak_mb")} for row in rows(folder, *WITHOUT_TIMES)]
    saved = folder / "model/model.safetensors"
    return kept, saved.read_bytes() if saved.exists() else None


def run(tmp_path, stop=None, **changes):
    """A run to its end, or one that is interrupted before step `stop`."""
    return gone(Loop.of(options(tmp_path, **changes)), stop)


@pytest.mark.parametrize("journalled", [True, False])
def test_the_weights_of_the_lowest_dev_loss_are_tested_and_saved(journalled, tmp_path):
    run(tmp_path, journal=journalled)
    run(tmp_path, journal=journalled, out=str(tmp_path / "last"), select="last")
    run(tmp_path, journal=journalled, out=str(tmp_path / "short"), select="last", steps=3)
    (best,), (last,), (short,) = (rows(tmp_path / name, "final") for name in ("run", "last", "short"))
    assert (best["step"], best["selected_step"], best["best_step"], best["forward_passes"]) == (12, 3, 3, 24)
    assert (last["step"], last["selected_step"], last["best_step"]) == (12, 12, 3)
    measured = ("dev_loss", "dev_accuracy", "test_loss", "test_accuracy")
    assert [best[name] for name in measured] == [short[name] for name in measured]
    assert (
        best["test_loss"] != last["test_loss"]
        and last["dev_loss"] == rows(tmp_path / "last", "evaluation")[-1]["dev_loss"]
    )
    assert what_counts(tmp_path / "run")[1] == what_counts(tmp_path / "short")[1] != what_counts(tmp_path / "last")[1]
    assert not list(tmp_path.glob("*/best*"))


def test_selected_weights_are_tested_where_nothing_is_kept(tmp_path):
    session = run(tmp_path, journal=False, save=False)
    short = run(tmp_path, journal=False, save=False, out=str(tmp_path / "short"), select="last", steps=3)
    found = [checkpoint.weights(s.context.language_model.model) for s in (session, short)]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert sorted(p.name for p in (tmp_path / "run").iterdir() if p.name[0] != ".") == [
        "config.toml", "environment.json", "rows.jsonl"
    ]  # fmt: skip


def test_the_last_weights_are_selected_without_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "write", lambda *_: pytest.fail("nothing is to be written"))
    run(tmp_path, select="last", patience=2)
    assert rows(tmp_path / "run", "final")[0]["selected_step"] == 9


METHODS = [
    {},
    {"method": "adamw", "checkpoint_every": 2},
    {"journal": False},
    {"method": "sgd", "lr": 0.05, "steps": 15},
]


@pytest.mark.parametrize(("changes", "stop"), diagonal(METHODS, [4, 8]))
def test_a_continued_run_selects_and_stops_alike(changes, stop, tmp_path):
    changes = {"patience": 2, **changes}
    run(tmp_path, **changes, out=str(tmp_path / "whole"))
    (final,) = rows(tmp_path / "whole", "final")
    assert 0 < final["selected_step"] < final["step"] < changes.get("steps", 12)
    run(tmp_path, stop=stop, **changes)
    run(tmp_path, **changes)
    assert what_counts(tmp_path / "run") == what_counts(tmp_path / "whole")


def test_weights_that_were_lost_are_rebuilt_on_the_way(tmp_path, capsys):
    for name, changes in {"mezo": {}, "pending": {"engine": "in-forward"}, "adamw": {"method": "adamw"}}.items():
        changes = {"checkpoint_every": 5, **changes}
        run(tmp_path, **changes, out=str(tmp_path / name))
        for spoil in (Path.unlink, lambda file: file.write_bytes(file.read_bytes()[:-9])):
            folder = tmp_path / f"{name} {spoil.__name__}"
            run(tmp_path, stop=8, **changes, out=str(folder))
            spoil(folder / "best.safetensors")
            assert checkpoint.files(folder / "checkpoints")[0].name.startswith("step-00000005")  # later than step 3
            run(tmp_path, **changes, out=str(folder))
            assert what_counts(folder) == what_counts(tmp_path / name)
    assert capsys.readouterr().err.count("no whole checkpoint") == 3


def test_weights_of_another_run_and_lost_at_the_last_moment_are_refused(tmp_path):
    run(tmp_path, stop=8, seed=1, out=str(tmp_path / "other"))
    run(tmp_path, stop=8)
    mine = tmp_path / "run/best.safetensors"
    kept = mine.read_bytes()
    mine.write_bytes((tmp_path / "other/best.safetensors").read_bytes())
    with pytest.raises(ValueError, match="is of another run"):
        run(tmp_path)
    mine.write_bytes(kept)
    session = Loop.of(options(tmp_path))
    take = session.selection.restore
    session.selection.restore = lambda: (mine.unlink(), take())
    with pytest.raises(ValueError, match="does not hold the weights of step 3"):
        session.go()
    assert train(options(tmp_path))["selected_step"] == 3


def test_a_full_disk_keeps_the_better_weights_of_before(tmp_path, monkeypatch):
    run(tmp_path, out=str(tmp_path / "whole"))
    count, write = [0], checkpoint._write

    def full(file, tensors, metadata):
        count[0] += file.name.startswith("best")
        if count[0] == 2:
            raise OSError("No space left on device")
        write(file, tensors, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_write", full)
        with pytest.raises(OSError, match=r"No space left on device: what was .* make room"):
            run(tmp_path)
    assert checkpoint.load(tmp_path / "run/best.safetensors").step == 0 and not list(tmp_path.glob("run/*.part"))
    assert [row["step"] for row in rows(tmp_path / "run", "evaluation")] == [0]
    run(tmp_path)
    assert what_counts(tmp_path / "run") == what_counts(tmp_path / "whole")


def test_a_kill_between_the_final_row_and_the_removal_leaves_no_file(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("llm.loop.selection.discard", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(options(tmp_path))
    assert (tmp_path / "run/best.safetensors").exists()
    assert train(options(tmp_path))["selected_step"] == 3 and not list(tmp_path.glob("run/best*"))


def test_a_replay_goes_to_the_step_that_was_selected(tmp_path, capsys):
    run(tmp_path)
    folder = str(tmp_path / "run")
    assert journal(["replay", folder]) == 0
    assert "3 steps repeated of 12" in (said := capsys.readouterr().out) and "equal to the bit" in said
    assert journal(["replay", folder, "--steps", "3"]) == 0 and "equal to the bit" in capsys.readouterr().out
    assert journal(["replay", folder, "--steps", "12"]) == 0
    assert "another step: not compared" in (said := capsys.readouterr().out) and "12 steps repeated;" in said
    assert journal(["replay", folder, "--steps", "13"]) == 2
    assert "steps is 13, but the journal has 12" in capsys.readouterr().err
    rewritten = (tmp_path / "run/rows.jsonl").read_text().replace('"selected_step": 3', '"selected_step": 6')
    (tmp_path / "run/rows.jsonl").write_text(rewritten)  # a report, which decides nothing
    assert journal(["replay", folder]) == 0 and "equal to the bit" in capsys.readouterr().out
    loading.save(rebuild(read(tmp_path / "run/journal.bin"), 6), tmp_path / "run/model")
    assert journal(["replay", folder]) == 1 and "differs from" in capsys.readouterr().out  # planted: of another step


def test_an_old_run_is_one_that_ends_with_its_last_weights(tmp_path):
    run(tmp_path, stop=4, select="last")
    config = tmp_path / "run/config.toml"
    config.write_text(config.read_text().replace('select = "last"\n', ""))
    with pytest.raises(ValueError, match="select: 'last' there, 'best' now"):
        train(options(tmp_path))
    assert train(options(tmp_path, select="last"))["selected_step"] == 12


@pytest.mark.parametrize(
    ("losses", "best", "stopped"),
    [
        ([3.0, 2.0, 2.0, 1.5, 1.6, 1.5], 3, 5),  # equal is not better
        ([3.0, None, 2.0, None, None], 2, 4),
        ([None, None, None], 0, 2),
        ([3.0, 2.0, 1.0, 0.5], 3, None),
    ],
)
def test_what_is_best_and_when_patience_ends(losses, best, stopped, tmp_path):
    """Patience is 2; the answer for a step does not change with what was measured after it."""
    session = Loop.of(options(tmp_path, patience=2, select="last"))
    for step, loss in enumerate(losses):
        session.log.keep({"kind": "evaluation", "step": step, "dev_loss": loss})
    assert session.selection.best()["step"] == best
    ends = [step for step in range(len(losses)) if session.selection.stops(step)]
    assert ends[:1] == ([] if stopped is None else [stopped])


def test_what_cannot_be_selected_is_refused(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'best'"):
        Loop.of(options(tmp_path, select="bst"))
    with pytest.raises(ValueError, match="patience is 0"):
        Loop.of(options(tmp_path, patience=0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "forward-gradient", "epsilon": "auto"}, "has no epsilon to choose"),
        ({"epsilon": -1.0}, "give a positive displacement"),
        ({"schedule": "cosin"}, "Did you mean 'cosine'"),
        ({"warmup": 501}, "warmup 501"),
        ({"rounding": "stochastic", "engine": "plain"}, "give --engine in-forward"),
        ({"method": "adamw", "rounding": "master", "dtype": "bfloat16"}, "leave --rounding out"),
        ({"method": "sgd", "rounding": "stochastic", "dtype": "bfloat16"}, "leave --rounding out"),
    ],
)
def test_steps_that_no_model_can_take_are_refused_before_one_is_loaded(changes, message):
    with pytest.raises(ValueError, match=message):
        check(TrainOptions(**changes))


def test_a_baseline_takes_no_step_that_could_be_refused():
    check(TrainOptions(method="zero-shot", epsilon=-1.0, rounding="master"))


SPAM = Path(__file__).parents[1] / "results/spam"


def test_a_run_of_before_there_was_a_choice_is_read_as_one_that_ended_with_its_last_weights(tmp_path, capsys):
    old = SPAM / "seeds/mezo-lr0.0003-seed0"
    assert RunFolder.read(old).config["select"] == "last"
    copy = shutil.copytree(old, tmp_path / "old")
    assert main(["train", "--config", str(copy / "config.toml"), "--out", str(copy)]) == 0
    assert "holds a finished run" in capsys.readouterr().out


def test_a_study_of_before_finals_had_a_dev_loss_is_read(tmp_path, capsys):
    for folder in ("tune", "seeds"):
        for run in (SPAM / folder).glob("mezo-*"):
            shutil.copytree(run, tmp_path / folder / run.name)
    sizes = ["--train", "500", "--dev", "200", "--test", "330"]
    given = ["--methods", "mezo", "--forward-passes", "1000", "--rates", "3e-5,1e-4,3e-4,1e-3", *sizes]
    told = ["--provenance", "shipped", "--select", "last", "--max-tokens", "64", "--out", str(tmp_path), "--quiet"]
    assert main(["study", *given, *told]) == 0
    assert "mezo: lr 0.0003; test accuracy 92.7%" in capsys.readouterr().out


def selection(folder, *losses, patience=None, select="best", steps=99):
    """One of a run with these evaluations, at steps 0, 3, 6, ..."""
    measured = [{"step": 3 * i, "dev_loss": loss} for i, loss in enumerate(losses)]
    context = SimpleNamespace(
        language_model=SimpleNamespace(model=nn.Linear(2, 1)), options=SimpleNamespace(select=select, patience=patience)
    )
    log = SimpleNamespace(folder=folder, measured=lambda kind: measured)
    return Selection(context, SimpleNamespace(settle=lambda: None, steps=steps), log, {"run": "mine"})


def kept(folder):
    file = folder / "best.safetensors"
    return checkpoint.load(file).step if file.exists() else None


def test_the_first_of_equal_losses_is_kept(tmp_path):
    for losses, loss, wanted in [
        ((), 1.0, 0),
        ((1.0,), 1.0, 0),
        ((1.0,), 0.5, 3),
        ((1.0, 0.5), 0.5, 3),
        ((None,), 7.0, 3),
    ]:
        selection(tmp_path, *losses).on_evaluated(3 * len(losses), SimpleNamespace(loss=loss))
        assert kept(tmp_path) == wanted
    assert selection(tmp_path, 2.0, 1.0, 1.0).best()["step"] == 3
    selection(tmp_path / "last", 2.0, select="last").on_evaluated(3, SimpleNamespace(loss=1.0))
    assert kept(tmp_path / "last") is None


def test_a_pending_step_is_taken_before_weights_are_kept(tmp_path):
    one = selection(tmp_path, 2.0)
    weight = one.model.weight
    one.stepper.settle = lambda: weight.data.fill_(7.0)
    one.on_evaluated(3, SimpleNamespace(loss=1.0))
    assert checkpoint.load(tmp_path / "best.safetensors").tensors["weight"].tolist() == [[7.0, 7.0]]


@pytest.mark.parametrize(("there", "missing"), [(None, 3), (0, 3), (3, None), (6, None)])
def test_weights_of_an_evaluation_before_the_best_one_are_made_again(there, missing, tmp_path):
    """Those of a later one are of an evaluation whose row a kill prevented, and which comes again."""
    one = selection(tmp_path, 2.0, 1.0, 1.5)
    if there is not None:
        one._keep(there)
    one.find_missing()
    assert one.missing == missing
    for step in (2, 3, 4):
        one.keep_missing(step)
    assert kept(tmp_path) == (3 if missing else there) and one.missing is None
    if kept(tmp_path) == 3:
        assert one.restore() == 3
    else:
        with pytest.raises(ValueError, match="does not hold the weights of step 3, which the journal selects"):
            one.restore()
    selection(tmp_path, 2.0, 1.0).on_ended({})
    assert kept(tmp_path) is None


def test_patience_counts_evaluations_since_the_first_of_the_lowest(tmp_path):
    one = selection(tmp_path, 3.0, 1.0, 1.0, 2.0, None, patience=2)
    assert [one.stops(step) for step in (0, 3, 6, 9, 12)] == [False, False, False, True, True]
    assert not selection(tmp_path, 1.0, 2.0, 3.0).stops(6)


def test_weights_of_the_last_step_are_taken_as_they_are(tmp_path):
    assert selection(tmp_path, 2.0, 1.0, steps=3).restore() == 3
    assert selection(tmp_path, 1.0, 2.0, select="last", steps=3).restore() == 3
    assert selection(tmp_path, steps=3).restore() == 3
