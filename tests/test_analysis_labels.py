"""analysis.labels: the fewest settings that differ, old configurations as they were meant, and never too long."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import labels
from analysis.labels import LONGEST, label, meaning, method_name
from analysis.outcomes import outcomes
from analysis.rows import read
from llm.options.train import TrainOptions
from zobench.run import toml
from zobench.run.options import before

OLD: dict[str, Any] = {"command": "train", "method": "mezo", "lr": 3e-4, "steps": 500, "schedule": "constant"}
NEW: dict[str, Any] = {**OLD, "objective": "task", "rates": [], "trained": [], "select": "last", "rows": "all"}
SHIPPED = {"provenance": "shipped"}


def run(root: Path, config: dict[str, Any], seed: int = 0, task: str = "spam") -> None:
    path = root / f"{len(list(root.iterdir())) if root.exists() else 0:03d}"
    path.mkdir(parents=True)
    about = {"model": "m", "task": task, "method": config["method"], "estimator": "e", "seed": seed}
    final = {"kind": "final", **about, "status": "ok", "test_accuracy": 0.8, "test_examples": 100}
    (path / "rows.jsonl").write_text(json.dumps(final) + "\n")
    (path / "config.toml").write_text(toml.dumps({**config, "seed": seed}))


def found(root: Path, *configs: dict[str, Any]) -> list[str]:
    for seed, config in enumerate(configs):
        run(root, config, seed)
    return outcomes(read([root]))["label"].tolist()


def test_an_old_configuration_means_what_it_meant_then(tmp_path: Path) -> None:
    assert found(tmp_path / "same", OLD, NEW) == ["mezo", "mezo"]
    assert found(tmp_path / "shipped", OLD | SHIPPED, NEW) == ["mezo (shipped)", "mezo"]
    best = {**NEW, "select": "best"}
    assert found(tmp_path / "best", OLD | SHIPPED, best) == ["mezo select=last", "mezo"]


def test_every_default_is_that_of_the_option_and_of_before_there_was_one() -> None:
    declared, meant = {field.name: field.default for field in dataclasses.fields(TrainOptions)}, before(TrainOptions)
    for name, value in labels._DEFAULTS.items():
        default = declared[name]
        assert (list(default) if isinstance(default, tuple) else default) == value, name
    for field in dataclasses.fields(TrainOptions):
        if field.name in labels._DEFAULTS:
            assert meaning({}, field.name) == meant.get(field.name, labels._DEFAULTS[field.name])


QUANTITIES = {"steps", "lr", "epsilon", "batch", "train", "dev", "test", "max_tokens"}


def test_every_option_is_a_quantity_or_incidental_or_has_its_default_here() -> None:
    """A new option that nobody sorts splits the runs of before it from those after."""
    names = {field.name for field in dataclasses.fields(TrainOptions)} - QUANTITIES
    unsorted = names - set(labels._DEFAULTS) - labels._INCIDENTAL
    assert {name for name in unsorted if not name.startswith(labels._WATCHING)} == set()
    assert "rule" in labels._DEFAULTS  # and would be among them, were it left out


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [
        ({"lr": 1e-4}, {"lr": 1e-3}, ["mezo lr=0.0001", "mezo lr=0.001"]),
        ({"lr": 1e-4, "steps": 1}, {"lr": 1e-3, "steps": 2}, ["mezo lr=0.0001", "mezo lr=0.001"]),
        ({"clip": 1.0}, {}, ["mezo clip=1", "mezo"]),
        ({"objective": "f1"}, {}, ["mezo objective=f1", "mezo"]),
        ({"gradient_checkpointing": True}, {}, ["mezo gradient_checkpointing", "mezo"]),
        ({"trained": ["lm_head"]}, {"trained": []}, ["mezo trained=lm_head", "mezo"]),
        ({"device": "cuda", "micro_batch": 4, "eval_every": 3}, {}, ["mezo", "mezo"]),
        ({"of_tomorrow": 7}, {}, ["mezo of_tomorrow=7", "mezo"]),
    ],
)
def test_the_fewest_settings_that_differ_are_said(
    tmp_path: Path, one: dict[str, Any], two: dict[str, Any], expected: list[str]
) -> None:
    assert found(tmp_path, {**NEW, **one}, {**NEW, **two}) == expected


def test_two_settings_are_said_where_one_does_not_tell_all_runs_apart(tmp_path: Path) -> None:
    grid = [{**NEW, "lr": lr, "steps": steps} for lr in (0.1, 0.2) for steps in (1, 2)]
    assert found(tmp_path, *grid) == [f"mezo lr={lr} steps={steps}" for lr in (0.1, 0.2) for steps in (1, 2)]


def test_what_is_trained_is_said_in_all_tasks_or_none(tmp_path: Path) -> None:
    run(tmp_path, {**NEW, "adapter": "lora"}, task="copa")
    run(tmp_path, {**NEW, "adapter": "lora"}, task="spam")
    run(tmp_path, NEW, task="spam")
    assert outcomes(read([tmp_path]))["label"].tolist() == ["mezo adapter=lora", "mezo adapter=lora", "mezo"]


def test_long_settings_are_cut_numbered_and_whole_in_the_table(tmp_path: Path) -> None:
    layers = [f"model.decoder.layers.{layer}.self_attn" for layer in range(9)]
    configs = [{**NEW, "trained": layers[:count], "provenance": p} for count in (5, 6, 7) for p in ("live", "shipped")]
    for seed, config in enumerate(configs):
        run(tmp_path, config, seed)
    ends = outcomes(read([tmp_path]))
    assert ends["label"].is_unique
    assert ends["label"].map(len).max() <= LONGEST
    assert not ends["label"].str.contains("?", regex=False).any()
    assert ends["setting"].iloc[-1] == f"trained={','.join(layers[:7])}"


def test_methods_are_named_without_their_spelling() -> None:
    assert method_name("mezo") == "mezo"
    assert method_name("kerzoo:order=5") == "kerzoo order=5"
    assert method_name("package.module:make:n=2") == "make n=2"


@pytest.mark.parametrize("dtype", ["object", "str", "string"])
def test_labels_do_not_depend_on_how_pandas_keeps_strings(dtype: str) -> None:
    frame = pd.DataFrame({"method": ["mezo", "mezo"], "provenance": ["live", "shipped with it"], "lr": [1.0, 1.0]})
    frame = frame.astype({"method": dtype, "provenance": dtype})
    assert label(frame, [], ["lr"])["label"].tolist() == ["mezo", "mezo (shipped)"]
