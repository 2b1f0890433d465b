"""Presets: each is a valid run, what overrides what, and that the values are those of their sources."""

import json
import statistics
import tomllib
from argparse import Namespace
from pathlib import Path

import pytest
import tiny_models

from llm import listing
from llm.__main__ import main
from llm.run import presets
from llm.run.check import check
from llm.run.options import TrainOptions
from llm.run.record import open_record
from llm.tasks import TASKS
from zobench.naming import UnknownNameError
from zobench.run.options import build

SPAM = Path(__file__).parents[1] / "results/spam"
SMOLLM2 = Path(__file__).parents[1] / "results/smollm2"
QUICK = ["--steps", "2", "--train", "16", "--dev", "4", "--test", "4", "--max-tokens", "16", "--no-save"]


def built(**given):
    return build(TrainOptions, Namespace(**{"config": None, "command": "train", **given}))


@pytest.mark.parametrize("name", presets.table())
def test_every_preset_is_a_run_that_could_begin(name):
    preset, options = presets.table()[name], built(preset=name)
    check(options)
    assert preset.source and options.task in TASKS
    assert {key: getattr(options, key) for key in preset.values} == dict(preset.values)
    assert {"model", "task", "method", "lr", "steps", "batch"} <= preset.values.keys()


def test_what_the_issue_asks_for_is_there():
    for kind in ("", "lora-", "prefix-"):
        for task in ("sst2", "rte", "cb", "boolq", "wsc", "wic", "multirc", "copa", "record", "squad", "drop"):
            values = presets.table()[f"mezo-{kind}opt-13b-{task}"].values
            assert (values["steps"], values["batch"], values["select"]) == (20_000, 16, "best")
    assert built(preset="mezo-prefix-opt-13b-cb").adapter == "prefix:tokens=5"


def test_a_later_group_refines_an_earlier_one():
    general, wsc = (presets.table()[f"mezo-opt-13b-{task}"] for task in ("rte", "wsc"))
    assert (general.values["lr"], wsc.values["lr"]) == (1e-6, 1e-7)
    assert wsc.source.startswith(general.source) and "MeZO#15" in wsc.source
    assert wsc.values["epsilon"] == general.values["epsilon"]


def test_preset_then_config_then_command_line(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("lr = 0.5\nbatch = 7\n")
    options = built(preset="mezo-tiny-opt-spam", config=str(file), batch=3)
    assert (options.lr, options.batch) == (0.5, 3)
    assert (options.test, options.epsilon) == (330, 1e-3)  # of the preset
    assert options.warmup == TrainOptions().warmup


def test_a_preset_in_a_file_written_by_hand_counts_and_in_that_of_a_run_is_a_note(tmp_path):
    file = tmp_path / "config.toml"
    file.write_text('preset = "mezo-tiny-opt-spam"\nbatch = 7\n')
    assert (built(config=str(file)).lr, built(config=str(file)).batch) == (3e-4, 7)
    file.write_text('command = "train"\npreset = "of an older version"\nbatch = 7\n')
    options = built(config=str(file))
    assert (options.preset, options.lr, options.batch) == ("of an older version", TrainOptions().lr, 7)


def test_an_unknown_preset_is_told_with_the_nearest():
    with pytest.raises(UnknownNameError, match="Did you mean 'mezo-opt-13b-sst2'"):
        built(preset="mezo-opt-13b-sst-2")


def test_a_preset_with_an_option_of_another_version_is_told(monkeypatch):
    table = {"ahead": presets.Preset("ahead", {"adaptor": "lora"}, "tomorrow")}
    monkeypatch.setattr(presets, "table", lambda: table)
    with pytest.raises(UnknownNameError, match=r"option in preset ahead: 'adaptor'\. Did you mean 'adapter'"):
        built(preset="ahead")


def test_a_run_says_its_preset_and_is_continued_without_it(tmp_path, capsys):
    out = tmp_path / "run"
    command = ["train", "--preset", "sgd-tiny-opt-spam", *QUICK, "--out", str(out)]
    assert main(command) == 0
    config = tomllib.loads((out / "config.toml").read_text())
    assert (config["preset"], config["method"], config["lr"], config["steps"]) == ("sgd-tiny-opt-spam", "sgd", 0.01, 2)
    assert config["eval_every"] == 10 and "dry_run" not in config
    (row,) = [row for row in map(json.loads, (out / "rows.jsonl").read_text().splitlines()) if row["kind"] == "final"]
    assert (row["method"], row["lr"]) == ("sgd", 0.01)
    assert main(["train", "--config", str(out / "config.toml")]) == 0
    assert "holds a finished run" in capsys.readouterr().out
    unnamed = TrainOptions(**{k: v for k, v in config.items() if k not in ("command", "preset")})
    assert open_record(unnamed).rows


@pytest.mark.parametrize("method", ["mezo", "kerzoo", "forward", "richardson", "sgd", "adamw"])
def test_our_own_presets_are_what_the_rows_say(method):
    def finals(group):
        for file in sorted(SPAM.glob(f"{group}/{method}-*/rows.jsonl")):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            yield [row for row in rows if row["kind"] == "evaluation"][-1], rows[-1]

    tuned = {final["lr"]: evaluation["dev_loss"] for evaluation, final in finals("tune") if final["status"] == "ok"}
    preset = presets.table()[f"{method}-tiny-opt-spam"]
    assert min(tuned, key=tuned.get) == preset.values["lr"]
    runs = [final for _, final in finals("seeds")]
    assert {(run["lr"], run["step"]) for run in runs} == {(preset.values["lr"], preset.values["steps"])}
    accuracies = [100 * run["test_accuracy"] for run in runs]
    found = f"test {statistics.mean(accuracies):.1f} % (sd {statistics.stdev(accuracies):.1f}, {len(runs)} seeds)"
    assert found in preset.source


def test_the_list_shows_presets_methods_and_the_architectures_that_are_tested(capsys):
    main(["list"])
    shown = capsys.readouterr().out
    assert "mezo-opt-13b-sst2  and for rte, cb" in shown and "princeton-nlp/MeZO#15" in shown
    for word in ("sgd ", "adamw ", "zero-shot ", "linear-probing ", "smollm2-135m-instruct", "gpt_neox"):
        assert word in shown
    assert tuple(tiny_models.CAUSAL) == listing.CAUSAL and listing.MASKED == tiny_models.MASKED
    main(["list", "--presets", "lora-opt-13b-wsc"])
    shown = capsys.readouterr().out
    assert "--adapter lora:r=8:alpha=16" in shown and "--eval-every 4000" in shown and "sst2" not in shown
    with pytest.raises(SystemExit):
        main(["list", "--presets", "mezo-opt-13b-wsk"])
    assert "Did you mean 'mezo-opt-13b-wsc'" in capsys.readouterr().err


@pytest.mark.parametrize("arm", ["mezo", "mezo-lora", "adamw-lora"])
def test_presets_of_smollm2_are_what_its_study_chose_and_ran(arm):
    rows = [json.loads(line) for line in (SMOLLM2 / "rows.jsonl").read_text().splitlines()]
    (chosen,) = [row for row in rows if row.get("method") == arm]
    preset = presets.table()[f"{arm}-smollm2-135m-sst2"]
    assert preset.values["lr"] == chosen["lr"]
    ran = tomllib.loads((SMOLLM2 / f"seeds/sst2-{arm}-seed0/config.toml").read_text())
    assert {key: ran.get(key) for key in preset.values if key != "model"} == {
        key: value for key, value in preset.values.items() if key != "model"
    }
