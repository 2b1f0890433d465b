"""Facts about a base model without loading it: its name, its licence, and the origin of its weights."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load

from llm.export import adapter_folder
from llm.export.escaped import HUB_ID, line, placeless
from llm.model.adapted import is_adapter
from llm.model.loading import SMOLLM2
from llm.run.folder import run_of

WEIGHTS = "base_weights"
"""Key of a model card's metadata under which exports say what the base weights were."""
ROUNDED = re.compile(r"(?:^|[._-])i?q(\d)(?:[._-]|$)", re.IGNORECASE)


@dataclass(frozen=True)
class BaseModel:
    """`name` is a hub id where there is one, `weights` says what differs from the published weights, if anything."""

    name: str
    on_hub: bool = False
    license: str | None = None
    weights: str = ""


NAMED = {
    "tiny-opt": BaseModel(
        "tiny-opt", False, "mit", "the tiny OPT that comes with zobench, pretrained by `python -m llm pretrain`"
    ),
    SMOLLM2: BaseModel(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        True,
        "apache-2.0",
        "a 4-bit rounding (Q4_1, from a GGUF file) of the original, not the original",
    ),
}


def base_model(name: str) -> BaseModel:
    """Return what is known of a model as `--model` names it; nothing is loaded, and the hub is not asked.

    A folder tells it by the run that wrote it, or by the metadata of its model card; that of an adapter by its base.

    Raises:
        ValueError: a file of the folder's run is damaged.
    """
    path = Path(name).expanduser()
    if name in NAMED:
        return NAMED[name]
    if is_adapter(name):
        return base_model(_plain_base(path))
    if path.suffix == ".gguf":
        return BaseModel(path.stem, weights=rounding(path.name))
    if path.is_dir():
        return _of_folder(path)
    return _named(name)


def _plain_base(adapter: Path) -> str:
    name = adapter_folder.base_of(adapter)
    if is_adapter(name):
        raise ValueError(f"{adapter}: its base {name!r} is an adapter too: merge that into a model first")
    return name


def rounding(file: str) -> str:
    """Return what the name of a GGUF file says of its weights: "Q4_1" is 4 bits."""
    match = ROUNDED.search(file)
    if match:
        return f"a {match[1]}-bit rounding of the original ({file}), not the original"
    return f"from {file}: rounded, unless that holds floats"


def _of_folder(folder: Path) -> BaseModel:
    run = run_of(folder)
    if run is not None:
        before = base_model(str(run.config["model"]))
        tuned = f"tuned before on {placeless(run.config['task'])} by {run.config['method']} ({run.folder.name})"
        said = f"{tuned}; the weights before that: {before.weights}" if before.weights else tuned
        return BaseModel(before.name, before.on_hub, before.license, said)
    gguf = sorted(folder.glob("*.gguf"))
    if gguf and not (folder / "config.json").is_file():
        return BaseModel(folder.resolve().name, weights=rounding(gguf[0].name))
    card = card_metadata(folder)
    name, license, weights = (_text(card.get(key)) for key in ("base_model", "license", WEIGHTS))
    return replace(_named(name or folder.resolve().name), license=license, weights=weights or "")


def _named(name: str) -> BaseModel:
    """A model of that name, on the hub where it can be an id of it; of a path, the last part."""
    return BaseModel(name, True) if HUB_ID.fullmatch(name) else BaseModel(placeless(name))


def card_metadata(folder: Path) -> dict[str, Any]:
    """Return the metadata of a folder's model card; nothing where it has none, or none that can be read."""
    try:
        return metadata_load(folder / "README.md") or {}
    except Exception:  # no file, no YAML, no text: each of its readers has an error of its own
        return {}


def _text(value: Any) -> str | None:
    """A text in one line, or the only one of a list."""
    value = value[0] if isinstance(value, list) and len(value) == 1 else value
    return (line(value) or None) if isinstance(value, str) else None
