"""Options in groups: what several commands share is written once, reaches their runs, and changes no run of before."""

import argparse
import dataclasses
import shutil
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

from llm import __main__ as llm
from llm.options import groups
from llm.options.train import TrainOptions
from llm.studies import study, tune
from zobench.run.options import add_arguments, before, build, from_groups, option, unnamed

RESULTS = Path(__file__).parents[1] / "results"
GROUPS = [cls for cls in vars(groups).values() if dataclasses.is_dataclass(cls)]
OTHER = {int: 3, float: 0.25, str: "other", bool: None, tuple: ("other",)}


@dataclass(frozen=True)
class Size:
    """How large."""

    batch: int = option(16, "examples in the minibatch of a step", before=8)
    epsilon: float = option(1e-3, "displacement")


@dataclass(frozen=True)
class Place:
    """Where."""

    out: str = option("runs/x", "folder")


@dataclass(frozen=True)
class One(Place, Size):
    rates: tuple[str, ...] = option((), "patterns")
    seed: int = option(0, "names the draws")


@dataclass(frozen=True)
class Many(Place, Size):
    batch: int = 4
    epsilon: float = option(1e-2, "another displacement")
    rates: tuple[float, ...] = option((0.1,), "numbers")


def parser_of(cls):
    parser = argparse.ArgumentParser()
    add_arguments(parser, cls)
    return parser


def test_another_default_keeps_the_help_and_what_was_before_and_another_help_replaces_both():
    text = parser_of(Many).format_help()
    assert "examples in the minibatch of a step (default: 4)" in text and "another displacement (default: 0.01)" in text
    assert "examples in the minibatch of a step (default: 16)" in parser_of(One).format_help()
    assert before(Many) == {"batch": 8} == before(One)
    assert unnamed(Many) == {"batch": 8, "epsilon": 1e-2, "out": "runs/x", "rates": (0.1,)}
    given = argparse.Namespace(command="t", **vars(parser_of(Many).parse_args(["--epsilon", "0.5"])))
    assert build(Many, given) == Many(epsilon=0.5)


def test_help_has_a_part_for_each_group_in_the_order_of_the_fields():
    text = parser_of(One).format_help().partition("\noptions:")[2]
    places = [text.index(words) for words in ("  --rates", "\nHow large:", "  --batch", "\nWhere:", "  --out")]
    assert places == sorted(places) and text.index("  --seed") < text.index("\nHow large:")
    assert [field.name for field in dataclasses.fields(One)] == ["batch", "epsilon", "out", "rates", "seed"]


def test_values_go_by_groups_and_not_by_names():
    assert from_groups(One, Many(2, 0.5, "there"), seed=3) == One(2, 0.5, "there", (), 3)
    assert from_groups(One, Many(2, 0.5, "there"), out="here").out == "here"


def test_every_option_of_training_is_in_one_group():
    own = [name for group in GROUPS for name in vars(group)["__annotations__"]]
    assert sorted(own) == sorted({*own}) == sorted(field.name for field in dataclasses.fields(TrainOptions))


@pytest.mark.parametrize("command", ["train", "evaluate", "tune", "study", "compare", "noise", "rounding"])
def test_a_command_says_nothing_again_that_its_groups_say(command):
    cls, _ = llm.COMMANDS[command]
    inherited = {
        field.name: field for base in cls.__bases__ if base is not object for field in dataclasses.fields(base)
    }
    for name in set(vars(cls).get("__annotations__", ())) & set(inherited):
        own = cls.__dataclass_fields__[name].metadata
        assert own.get("help") != inherited[name].metadata["help"], f"{command}: {name} needs its default alone"


def changed(cls):
    """Options of a command, none of those that it shares with train at its default."""
    values = {}
    for group in (base for base in cls.__mro__ if base in GROUPS):
        for field in dataclasses.fields(group):
            default = field.default
            values[field.name] = (
                not default if type(default) is bool else OTHER[str if default is None else type(default)]
            )
    return cls(**values), values


def test_what_a_study_shares_with_train_reaches_its_runs(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "_steps", lambda options, method: 30)
    given, values = changed(study.StudyOptions)
    given = dataclasses.replace(given, out=str(tmp_path), evaluations=5)
    run = study._seed(given, "mezo", 0.5, 7).options
    decided = {"method": "mezo", "lr": 0.5, "seed": 7, "steps": 30, "eval_every": 6, "save": False, "journal": False}
    decided["out"] = str(tmp_path / "seeds/mezo-lr0.5-seed7")
    assert run == TrainOptions(**{**values, **decided})
    assert {"objective", "bos", "trust_remote_code", "epsilon", "select", "provenance"} <= set(values)


def test_what_a_search_shares_with_train_reaches_its_trials():
    given, values = changed(tune.TuneOptions)
    trained = tune._train_options(given, {"lr": 0.5, "epsilon": 0.125, "batch": 2})
    assert trained == TrainOptions(**{**values, "lr": 0.5, "epsilon": 0.125, "batch": 2})
    trial = tune._trial_options(given, {"lr": 0.5, "batch": 2}, out="there")
    decided = {"baselines": False, "save": False, "select": "last", "resume": True, "dry_run": False, "preset": None}
    assert trial == TrainOptions(**{**values, **decided, "also": (), "lr": 0.5, "batch": 2, "out": "there"})


@pytest.mark.environment
@pytest.mark.parametrize("folder", ["noise/tiny-opt-float32"])
def test_a_report_of_before_its_options_were_shared_continues(folder, tmp_path, monkeypatch, capsys):
    place = tmp_path / "results" / folder
    shutil.copytree(RESULTS / folder, place)
    rows = (place / "rows.jsonl").read_text()
    assert "objective" not in tomllib.loads((place / "config.toml").read_text())
    monkeypatch.chdir(tmp_path)
    assert llm.main(["noise", "--config", str(place / "config.toml"), "--quiet"]) == 0
    assert (place / "rows.jsonl").read_text() == rows and "recommended epsilon" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        llm.main(["noise", "--config", str(place / "config.toml"), "--bos", "0", "--quiet"])
    assert "bos: None there, 0 now" in capsys.readouterr().err


@pytest.mark.environment
def test_noise_refuses_an_objective_without_a_gradient(tmp_path, capsys):
    with pytest.raises(SystemExit):
        llm.main(["noise", "--objective", "accuracy", "--lines", "2", "--batch", "2", "--out", str(tmp_path / "n")])
    assert "accuracy has no gradient to compare with" in capsys.readouterr().err
