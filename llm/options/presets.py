"""Presets: recommended options of a training run, by name, each with where its values come from."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Preset:
    """Values of options of `python -m llm train`, and their source."""

    name: str
    values: Mapping[str, Any]
    source: str


@cache
def table() -> dict[str, Preset]:
    """Return the presets by name.

    A group of the file is a preset for each of its models and tasks: the values of its `setting`, then its own. A later
    group refines those of the same name: its own values replace theirs, one by one, and its source is told too.
    """
    contents = tomllib.loads(FILE.read_text(encoding="utf-8"))
    presets: dict[str, Preset] = {}
    for group in contents["group"]:
        for model in group["models"]:
            for task in group["tasks"]:
                name = group["name"].format(model=model, task=task)
                named = {"model": contents["models"][model], "task": task}
                before = presets.get(name, Preset(name, contents["setting"].get(group.get("setting"), {}), ""))
                source = "; ".join(filter(None, (before.source, group["source"])))
                presets[name] = Preset(name, {**named, **before.values, **group["values"]}, source)
    return presets


def values() -> dict[str, Mapping[str, Any]]:
    """Return the values of each preset, as `zobench.run.options` wants them."""
    return {name: preset.values for name, preset in table().items()}
