"""Searches: on dev alone, the same after any interruption, every trial a row."""

import json
import math
import tomllib

import pytest
import torch

from llm.__main__ import main
from llm.objective import Objective
from llm.run.context import prepare, split_of
from llm.steppers.zeroth_order import ZerothOrderStepper
from llm.studies import tune
from llm.studies.search import Axis, Tried, axis, propose
from llm.studies.tune import TuneOptions

pytestmark = pytest.mark.environment

QUICK = {"steps": 3, "train": 16, "dev": 6, "test": 6, "max_tokens": 16, "eval_every": 2}
LINE = [word for name, value in QUICK.items() for word in ("--" + name.replace("_", "-"), str(value))]


def options(tmp_path, **changes):
    given = {**QUICK, "lr": "1e-5:1e-3", "batch": "2,4", "trials": 3, "out": str(tmp_path / "search")}
    return TuneOptions(**{**given, **changes})


def rows(folder, kind):
    found = map(json.loads, (folder / "rows.jsonl").read_text().splitlines())
    return [{k: v for k, v in row.items() if k != "seconds"} for row in found if row["kind"] == kind]


def trials(folder):
    return rows(folder, "trial")


def test_each_trial_is_a_row_and_none_measures_test(tmp_path, monkeypatch, capsys):
    given, seen = options(tmp_path), []
    measure = Objective.measure

    def watched(self, examples, *more):
        seen.extend(row.example.prompt for row in examples)
        return measure(self, examples, *more)

    monkeypatch.setattr(Objective, "measure", watched)
    tune.run(given)
    found = trials(tmp_path / "search")
    assert [row["number"] for row in found] == [0, 1, 2]
    for row in found:
        assert 1e-5 <= row["lr"] <= 1e-3 and row["batch"] in (2, 4) and row["status"] == "ok"
        assert row["forward_passes"] == 6 and math.isfinite(row["dev_loss"])
    split = split_of(given)
    assert seen and set(seen) <= {e.prompt for e in split.dev} and not set(seen) & {e.prompt for e in split.test}
    for file in (tmp_path / "search").rglob("rows.jsonl"):
        assert "test_" not in file.read_text(), file
    shown = capsys.readouterr().out
    assert shown.count(" ok\n") == 3 and f"--config {tmp_path / 'search/best.toml'}" in shown


@pytest.mark.parametrize(("lr", "told"), [("0.04,0.05", True), ("0.003,0.005", False)])
def test_trials_that_only_did_harm_are_told(tmp_path, capsys, lr, told):
    tune.run(options(tmp_path, lr=lr, epsilon=1e-3, batch=16, trials=2, steps=4))
    assert all((row["best_step"] == 0) == told for row in trials(tmp_path / "search"))
    assert ("no trial has a lower dev loss" in capsys.readouterr().out) == told


def test_a_trial_has_no_test_examples_and_trains_on_none_of_them(tmp_path):
    given = {"lr": 1e-4, "batch": 2}
    trial, usual = (prepare(options(tmp_path, **given), test=test).data for test in (False, True))
    assert trial.test == [] and len(usual.test) == 6
    assert trial.train == usual.train and trial.dev == usual.dev


def test_the_best_values_train_with_the_command_that_is_printed(tmp_path, capsys):
    tune.run(options(tmp_path, trials=2, select="last"))
    best = min(trials(tmp_path / "search"), key=lambda row: row["dev_loss"])
    config = tomllib.loads((tmp_path / "search/best.toml").read_text())
    assert {name: config[name] for name in ("lr", "batch")} == {name: best[name] for name in ("lr", "batch")}
    command = capsys.readouterr().out.splitlines()[-1].split()
    assert command[:4] == ["python", "-m", "llm", "train"]
    assert main(command[3:]) == 0
    (final,) = rows(tmp_path / "search-best", "final")
    assert final["dev_loss"] == best["dev_loss"] and final["test_examples"] == 6


def test_the_lowest_dev_loss_counts_where_the_best_weights_would_be_taken(tmp_path):
    for select in ("best", "last"):
        tune.run(options(tmp_path, lr="1e-3,3e-3", batch=2, trials=2, select=select, out=str(tmp_path / select)))
    for best, last in zip(trials(tmp_path / "best"), trials(tmp_path / "last"), strict=True):
        evaluations = rows(tmp_path / f"last/trials/{last['number']:04d}", "evaluation")
        losses = [row["dev_loss"] for row in evaluations]
        assert (best["dev_loss"], last["dev_loss"]) == (min(losses), losses[-1])


@pytest.mark.parametrize(("sampler", "at"), [("tpe", 0), ("tpe", 4), ("random", 8)])
def test_an_interrupted_search_ends_as_an_uninterrupted_one(sampler, at, tmp_path, monkeypatch):
    whole, part = (options(tmp_path, sampler=sampler, out=str(tmp_path / name)) for name in ("whole", "part"))
    tune.run(whole)
    take, calls = ZerothOrderStepper.step, []

    def stop(self, *arguments):
        if len(calls) == at:
            raise KeyboardInterrupt
        calls.append(1)
        return take(self, *arguments)

    monkeypatch.setattr(ZerothOrderStepper, "step", stop)
    with pytest.raises(KeyboardInterrupt):
        tune.run(part)
    assert len(trials(tmp_path / "part")) == at // 3 if at >= 3 else not (tmp_path / "part/rows.jsonl").exists()
    calls.clear()
    monkeypatch.setattr(ZerothOrderStepper, "step", lambda self, *a: calls.append(1) or take(self, *a))
    tune.run(part)
    assert len(calls) == 9 - at  # no step was taken again
    assert trials(tmp_path / "part") == trials(tmp_path / "whole")
    assert (tmp_path / "part/best.toml").read_bytes() == (tmp_path / "whole/best.toml").read_bytes()


def test_a_kill_between_a_trial_and_its_row_loses_nothing_and_more_trials_continue(tmp_path, monkeypatch):
    tune.run(options(tmp_path, trials=2))
    wanted, file = trials(tmp_path / "search"), tmp_path / "search/rows.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with monkeypatch.context() as patch:
        patch.setattr(ZerothOrderStepper, "step", lambda *a: pytest.fail("a step was repeated"))
        tune.run(options(tmp_path, trials=2))
    assert trials(tmp_path / "search") == wanted
    tune.run(options(tmp_path, trials=3))
    assert trials(tmp_path / "search")[:2] == wanted and len(trials(tmp_path / "search")) == 3
    with pytest.raises(ValueError, match="another configuration"):
        tune.run(options(tmp_path, lr="1e-6:1e-3"))


def test_trials_that_diverge_or_fail_count_and_lose(tmp_path, monkeypatch, capsys):
    take = ZerothOrderStepper.step

    def step(self, *arguments):
        if self.rule.rate(0) == 2e-4:
            raise RuntimeError("out of memory")
        return take(self, *arguments)

    monkeypatch.setattr(ZerothOrderStepper, "step", step)
    order = iter([1e-4, 2e-4, 1e30])
    monkeypatch.setattr(tune, "propose", lambda *a: {"lr": next(order)})
    tune.run(options(tmp_path, lr="1e-4,2e-4,1e30", batch=2))
    found = trials(tmp_path / "search")
    assert [row["status"] for row in found] == ["ok", "failed", "diverged"]
    assert found[1]["reason"] == "RuntimeError: out of memory" and found[1]["dev_loss"] is None
    assert tomllib.loads((tmp_path / "search/best.toml").read_text())["lr"] == 1e-4
    assert "failed" in capsys.readouterr().out


def test_a_search_in_which_nothing_holds_says_so(tmp_path):
    with pytest.raises(ValueError, match="all 2 trials diverged or failed"):
        tune.run(options(tmp_path, lr="1e29,1e30", trials=2))
    assert not (tmp_path / "search/best.toml").exists()


def test_the_first_fault_of_all_stops_the_search(tmp_path):
    with pytest.raises(ValueError, match="known names: tiny-opt"):
        tune.run(options(tmp_path, model="tiny-optt"))
    assert not (tmp_path / "search/rows.jsonl").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--lr", "1e-3"], "nothing to search"),
        (["--lr", "1e-3:1e-5"], "0 < low < high"),
        (["--lr", "0:1"], "0 < low < high"),
        (["--lr", "1e-3:x"], "give low:high, choices a,b,c, or one value"),
        (["--lr", "1:2:3"], "give low:high"),
        (["--batch", "2:4"], "give whole numbers"),
        (["--batch", "2,2.5"], "give whole numbers"),
        (["--batch", "2,99"], "batch is 99 but there are 16"),
        (["--trials", "0"], "trials is 0"),
        (["--sampler", "tpee"], "Did you mean 'tpe'"),
        (["--method", "zero-shot"], "nothing to tune"),
        (["--method", "sgd", "--epsilon", "1e-4:1e-2"], "does not read it"),
        (["--method", "forward-gradient", "--epsilon", "1e-4:1e-2"], "does not read it"),
        (["--method", "mezo:epsilon=1e-3", "--epsilon", "1e-4:1e-2"], "does not read it"),
        (["--preset", "mezo-tiny-opt-spam"], "nothing to search"),
    ],
)
def test_bad_searches_are_told_before_the_first_trial(argv, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["tune", *LINE, *argv, "--out", str(tmp_path / "search")])
    assert message in capsys.readouterr().err and not (tmp_path / "search").exists()


def test_axes_are_read_as_they_are_written():
    assert axis("lr", "1e-6:1e-3") == Axis(1e-6, 1e-3)
    assert axis("batch", "8,16,8") == Axis(choices=(8, 16))
    assert axis("lr", 1e-3) is None and axis("epsilon", "auto") is None


SPACE = {"lr": Axis(1e-6, 1.0), "batch": Axis(choices=(1, 2))}


def test_a_proposal_depends_on_the_trials_before_it_and_the_seed_alone():
    tried = [Tried({"lr": 10.0 ** -(i % 5 + 1), "batch": 1 + i % 2}, float(i)) for i in range(14)]
    wanted = propose(SPACE, tried, "tpe", 7)
    torch.manual_seed(5)
    propose(SPACE, tried[:3], "tpe", 7)
    assert propose(SPACE, list(tried), "tpe", 7) == wanted
    assert propose(SPACE, tried, "tpe", 8) != wanted and propose(SPACE, tried[:13], "tpe", 7) != wanted


def test_ranges_are_searched_on_a_logarithmic_scale():
    drawn = [propose(SPACE, [Tried({"lr": 0.1, "batch": 1}, 1.0)] * i, "random", 0)["lr"] for i in range(40)]
    below = sum(lr < 1e-3 for lr in drawn)  # half of a logarithmic scale, a thousandth of a plain one
    assert abs(below - 20) / math.sqrt(10) < 5 and all(1e-6 <= lr <= 1 for lr in drawn)
    plain = sum(lr < 0.5 for lr in drawn)  # the twin: where the scale were plain, this would be the half
    assert abs(plain - 20) / math.sqrt(10) > 5


def test_tpe_goes_where_losses_are_low_and_a_diverged_trial_is_the_worst():
    def miss(values):
        return abs(math.log10(values["lr"]) + 4)

    def search(sampler):
        tried = []
        for _ in range(40):
            values = propose(SPACE, tried, sampler, 0)
            tried.append(Tried(values, miss(values) if values["lr"] < 1e-2 else math.inf))
        return sum(miss(trial.values) for trial in tried[20:]) / 20

    assert search("tpe") < 0.6 * search("random")
