"""Comparisons from a plan: what each run does, what is refused, and that nothing is done twice."""

import json
import re
from pathlib import Path

import pytest

from llm.__main__ import main
from llm.studies import archive, runs
from llm.studies.compare import Study, rounds
from llm.studies.plan import read_plan
from llm.studies.rates import beyond, forward_passes_a_step
from tests import gguf_files
from zobench import methods
from zobench.run.records import Run

PLAN = """
model = "tiny-opt"
tuned_on = "spam"
tuning_passes = 6
evaluations = 1

[train]
batch = 4
train = 20
dev = 10
test = 10
max_tokens = 24
journal = false

[tasks.spam]
seeds = 2
forward_passes = 12

[tasks.sentences]
forward_passes = 6

[arms.mezo]
method = "mezo"
rates = [1e-4, 1e-3]

[arms.adamw]
method = "adamw"
batch = 2
rates = [1e-3]
"""

CALIBRATED = '[arms.c]\nmethod = "calibrated"'


@pytest.fixture
def plan(tmp_path):
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    return file


def rows(folder, kind):
    lines = (folder / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def test_an_arm_that_keeps_codes_loads_the_gguf_file_and_others_its_dequantised_copy(tmp_path):
    gguf_files.write(tmp_path / "tiny.gguf")
    kept = '[arms.kept]\nmethod = "mezo"\nquantize = "gguf"\nrates = [1e-3]\n'
    adapted = kept.replace("arms.kept", "arms.adapted") + 'adapter = "lora:r=2"\n'
    (tmp_path / "plan.toml").write_text(PLAN.replace("tiny-opt", str(tmp_path / "tiny.gguf")) + kept + adapted)
    assert main(["compare", "--plan", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out")]) == 0
    ended = [row for row in rows(tmp_path / "out", "arm-run") if row["group"] == "seeds"]
    assert {(row["arm"], row["model"]) for row in ended} == {
        *(("mezo", "tiny"), ("adamw", "tiny")),
        *(("kept", "tiny.gguf"), ("adapted", "tiny.gguf")),
    }


def test_every_arm_runs_for_the_same_forward_passes_at_the_rate_that_dev_chose(plan, tmp_path, capsys):
    argv = ["compare", "--plan", str(plan), "--out", str(tmp_path / "out")]
    assert main(argv) == 0
    chosen = {row["method"]: row for row in rows(tmp_path / "out", "chosen")}
    losses = dict(zip(chosen["mezo"]["rates"], chosen["mezo"]["dev_losses"], strict=True))
    assert chosen["mezo"]["lr"] == min(losses, key=losses.get)
    folders = {folder.name: rows(folder, "final")[0] for folder in (tmp_path / "out/seeds").iterdir()}
    names = ["sentences-adamw-seed0", "sentences-mezo-seed0", "spam-adamw-seed0", "spam-adamw-seed1"]
    assert sorted(folders) == [*names, "spam-mezo-seed0", "spam-mezo-seed1"]
    for name, final in folders.items():
        passes = 12 if name.startswith("spam") else 6
        assert final["forward_passes"] + 2 * final["backward_passes"] == passes
        assert final["lr"] == chosen[final["method"]]["lr"]
    before = (tmp_path / "out/seeds/spam-mezo-seed0/rows.jsonl").read_bytes()
    assert main(argv) == 0
    assert (tmp_path / "out/seeds/spam-mezo-seed0/rows.jsonl").read_bytes() == before


def test_finished_runs_are_read_from_the_rows_of_the_study(plan, tmp_path, monkeypatch):
    """Packed, or copied without the folders of the runs: nothing is run again."""
    argv = ["compare", "--plan", str(plan), "--out", str(tmp_path / "out"), "--arms", "mezo"]
    assert main([*argv, "--pack"]) == 0
    assert not (tmp_path / "out/seeds").exists()
    ended = rows(tmp_path / "out", "arm-run")
    assert {(row["group"], row["arm"]) for row in ended} == {("tune", "mezo"), ("seeds", "mezo")}
    assert all(row["curve"][-1][1:] == [row["dev_loss"], row["dev_accuracy"]] for row in ended)
    assert {row["group"] for row in ended if "test_accuracy" in row} == {"seeds"}
    monkeypatch.setattr(runs, "train", lambda *_: pytest.fail("a finished run is made again"))
    assert main(argv) == 0
    assert rows(tmp_path / "out", "arm-run") == ended
    before = (tmp_path / "out" / archive.FILE).read_bytes()
    assert archive.unpack(tmp_path / "out") == 15 and archive.unpack(tmp_path / "out") == 0
    archive.pack(tmp_path / "out", ("tune", "seeds"))
    assert (tmp_path / "out" / archive.FILE).read_bytes() == before


@pytest.mark.exhaustive
def test_two_processes_make_the_rows_of_one(plan, tmp_path):
    plan.write_text(PLAN.replace("seeds = 2", "seeds = 1").replace("rates = [1e-4, 1e-3]", "rates = [1e-4]"))
    found = {}
    for workers in ("1", "2"):
        out = tmp_path / workers
        assert main(["compare", "--plan", str(plan), "--out", str(out), "--workers", workers]) == 0
        found[workers] = {
            (row["group"], row["task"], row["arm"]): (row.get("test_loss"), row["curve"])
            for row in rows(out, "arm-run")
        }
    assert found["1"] == found["2"] and len(found["1"]) == 6


def test_no_run_begins_when_the_time_is_over(plan, tmp_path, capsys):
    argv = ["compare", "--plan", str(plan), "--out", str(tmp_path / "out")]
    for workers in ("1", "2"):
        assert main([*argv, "--hours", "0", "--workers", workers]) == 0
        assert "0 hours are over: 0 of 6 runs are done; the same command continues" in capsys.readouterr().out
    assert not rows(tmp_path / "out", "arm-run") if (tmp_path / "out/rows.jsonl").exists() else True


def study_of(plan, tmp_path, losses):
    """A study whose runs have these dev losses by arm and rate, and the list of its trials."""
    study, made = Study(read_plan(str(plan), None), Run(tmp_path / "out", {}), ""), []

    def ended(options, test=True):
        made.append((options.method, options.lr, options.seed))
        return {"dev_loss": losses[options.lr], "status": "ok", "test_accuracy": 0.5}

    return study, made, ended


def test_a_best_rate_at_an_edge_is_tried_beyond_and_a_tied_arm_takes_its_multiple(plan, tmp_path, monkeypatch):
    tied = '[arms.four]\nmethod = "mezo"\ntied = "mezo"\ntimes = 4.0\n'
    plan.write_text("tuning_seeds = 2\nrefine = 3\n" + PLAN + tied)
    losses = {1e-4: 0.9, 1e-3: 0.8, 1e-2: 0.5, 0.1: 0.7}
    study, made, ended = study_of(plan, tmp_path, losses)
    monkeypatch.setattr(runs, "ended", ended)
    assert study.rates(["four", "mezo"]) == {"mezo": 1e-2, "four": 4e-2}
    assert made == [("mezo", lr, seed) for lr in losses for seed in (-1, -2)]
    assert study.record.find(kind="chosen")[0]["rates"] == [1e-4, 1e-3, 1e-2, 0.1]


def test_rates_beyond_an_edge_are_bounded(plan, tmp_path, monkeypatch):
    plan.write_text("refine = 1\n" + PLAN)
    study, made, ended = study_of(plan, tmp_path, {1e-4: 0.9, 1e-3: 0.8, 1e-2: 0.5})
    monkeypatch.setattr(runs, "ended", ended)
    assert study.rates(["mezo"]) == {"mezo": 1e-2} and len(made) == 3


@pytest.mark.parametrize("last, chosen", [(1, 1e-2), (2, 1e-3), (3, 1e-3)])
def test_a_trial_is_judged_by_its_last_evaluations(last, chosen, plan, tmp_path, monkeypatch):
    """An unsteady run may end with the least loss, by chance and because its rate has fallen to 0."""
    curves = {1e-4: [1.0, 0.9, 0.9], 1e-3: [1.0, 0.8, 0.6], 1e-2: [1.0, 2.0, 0.5], 0.1: [1.0, 3.0, 3.0]}
    plan.write_text(f"tuning_evaluations = {last}\nrefine = 1\n" + PLAN)
    study, _, ended = study_of(plan, tmp_path, {lr: curve[-1] for lr, curve in curves.items()})

    def with_curve(options, test):
        return ended(options) | {"curve": [[0, loss, 0.5] for loss in curves[options.lr]]}

    monkeypatch.setattr(runs, "ended", with_curve)
    assert study.rates(["mezo"]) == {"mezo": chosen}


def test_a_seed_of_all_tasks_comes_before_the_next(plan):
    plan.write_text(PLAN.replace('method = "adamw"', 'method = "adamw"\nseeds = 1'))
    first = [(0, "spam", "mezo"), (0, "spam", "adamw"), (0, "sentences", "mezo"), (0, "sentences", "adamw")]
    assert list(rounds(read_plan(str(plan), None))) == [*first, (1, "spam", "mezo")]


def test_an_arm_may_name_its_tasks(plan):
    plan.write_text(PLAN.replace('method = "adamw"', 'method = "adamw"\ntasks = ["sentences"]'))
    runs = list(rounds(read_plan(str(plan), None)))
    assert [(task, arm) for _, task, arm in runs if arm == "adamw"] == [("sentences", "adamw")]


def test_an_arm_overrides_a_task_and_a_task_the_rest(plan):
    plan.write_text(PLAN.replace("seeds = 2", 'seeds = 2\nbatch = 3\ndata = "here"'))
    read = read_plan(str(plan), "/there")
    assert read.run_options("spam", "mezo", 12).batch == 3
    assert read.run_options("spam", "adamw", 12).batch == 2
    assert read.run_options("sentences", "mezo", 12).batch == 4
    assert read.run_options("spam", "mezo", 12).data == "/there/here"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("batch = 4", "bach = 4", "unknown option in train in .*: 'bach'. Did you mean 'batch'"),
        ("batch = 4", "steps = 4", "steps in train in .*: a plan decides it"),
        ("batch = 4", 'batch = "4"', "batch in train in .* is '4': give a int"),
        ('tuned_on = "spam"', 'tuned_on = "spa"', "unknown task in .*: 'spa'. Did you mean 'spam'"),
        ("tuning_passes = 6", 'tuning_passes = "6"', "tuning_passes in .* is '6': give a int"),
        ("tuning_passes = 6", "", "does not say tuning_passes"),
        ("forward_passes = 12", "forward_passes = 1", "1 forward passes are not enough for one step of mezo"),
        ("rates = [1e-3]", "rates = 1e-3", "rates in arms.adamw in .* is 0.001: give a list"),
        ('method = "mezo"', 'method = "mezzo"', "unknown method 'mezzo'. Did you mean 'mezo'"),
        (
            "[arms.mezo]",
            '[tasks.copa]\n[arms.c]\nmethod = "calibrated"\n[arms.mezo]',
            "those of task copa have their own",
        ),
        (
            "[arms.mezo]",
            '[arms.c]\nmethod = "icl"\ntasks = ["span"]\n[arms.mezo]',
            "unknown task of arms.c in .*: 'span'",
        ),
        ("tuned_on", "tuning_seeds = 0\ntuned_on", "tuning_seeds in .* is 0: give 1 or more"),
        ("rates = [1e-3]", 'tied = "mezzo"', "unknown arm that arms.adamw in .* is tied to: 'mezzo'"),
        ("rates = [1e-3]", 'tied = "adamw"', "is tied to adamw: give rates to adamw"),
        ("rates = [1e-3]", 'tied = "mezo"\ntimes = 0.0', "times in arms.adamw in .* is 0.0: give a positive factor"),
        ("rates = [1e-3]", "", "arms.adamw in .* has no rates: give the learning rates to choose from for adamw"),
        ("[arms.mezo]", '[arms.c]\nmethod = "icl"\nrates = [1.0]\n[arms.mezo]', "but icl takes no step"),
        ("batch = 4", 'preset = "mezo-tiny-opt-spam"', "preset in train in .*: a plan does not read it"),
        ("batch = 4", "dry_run = true", "dry_run in train in .*: a plan does not read it"),
        ("tuning_passes = 6", "tuning_passes = 1", "1 forward passes are not enough for one step of mezo"),
        ("[tasks.sentences]", '[tasks.sst2]\ndata = "nowhere"\n[tasks.sentences]', "nowhere"),
        ("[arms.mezo]", "[arms]\nmezo = 3\n[arms.x]", "arms.mezo in .* is 3: give a table"),
    ],
)
def test_a_plan_is_read_as_a_whole_before_anything_runs(old, new, message, plan, tmp_path, capsys):
    assert old in PLAN
    plan.write_text(PLAN.replace(old, new))
    with pytest.raises(SystemExit, match="2"):
        main(["compare", "--plan", str(plan), "--out", str(tmp_path / "out")])
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_a_step_costs_its_evaluations_and_a_backward_pass_two():
    costs = {"mezo": 2, "mezo:n=3": 6, "forward": 2, "richardson": 4, "sgd": 3, "adamw": 3}
    assert {method: forward_passes_a_step(method, 1e-3) for method in costs} == costs
    assert forward_passes_a_step("mezo", "auto") == 2


def test_the_study_of_smollm2_is_a_plan_with_its_task_files():
    plan = read_plan(str(Path(__file__).parents[1] / "llm/studies/smollm2.toml"), "data")
    assert set(plan.tasks) == {"sst2", "rte", "cb", "boolq", "copa", "wic"}
    assert all(Path(p.options.get("task", "wic.toml")).name.endswith(".toml") for p in plan.tasks.values())
    assert Path(plan.run_options("wic", "mezo", 100).task).is_file()


@pytest.mark.parametrize(
    ("lr", "rates", "wanted"),
    [
        (1e-3, (1e-4, 1e-3), 1e-2),
        (1e-4, (1e-4, 1e-3, 1e-2), 1e-5),
        (3e-4, (1e-4, 3e-4, 1e-3), None),
        (1.0, (1.0,), None),
    ],
)
def test_the_next_rate_lies_as_far_beyond_an_edge_as_its_neighbour_within(lr, rates, wanted):
    assert beyond(lr, rates) == wanted


@pytest.mark.parametrize("task", ["spam", "genre"])
def test_the_study_of_kerzoo_is_what_its_plan_says(task):
    root = Path(__file__).parents[1]
    plan = read_plan(str(root / f"llm/studies/kerzoo-{task}.toml"), None)
    page = (root / "docs/kerzoo-plan.md").read_text()
    assert plan.tasks[task].seeds == {"spam": 10, "genre": 5}[task] and plan.refine == 4
    for name, arm in plan.arms.items():
        assert f"`{name}`" in page
        options = plan.run_options(task, name, plan.tasks[task].forward_passes)
        if arm.rates or arm.tied:
            passes = options.steps * forward_passes_a_step(options.method, options.epsilon)
            assert 990 <= passes <= 1000
            estimator = None if options.method == "adamw" else methods.parse(options.method)
            if getattr(estimator, "least", 1.0) < 1:  # the interval shrinks over the run
                assert estimator.steps == options.steps
    assert {arm.rates for name, arm in plan.arms.items() if arm.rates and name != "adamw"} == {(3e-5, 1e-4, 3e-4, 1e-3)}
