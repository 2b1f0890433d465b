"""Adapters that peft wrote: copied as they are, or merged into their base model."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from llm.model import adapted
from llm.model.adapted import CONFIG, WEIGHTS, configuration
from llm.model.files import require_safe
from llm.model.language_model import DTYPES, LanguageModel
from llm.quantised import Choice, dense_
from llm.run.folder import MODEL

COPIED = (".json", ".jinja", ".model", ".safetensors", ".txt")
"""Endings of what is copied: no pickles and no code."""


def find(path: Path) -> Path | None:
    """Return the folder of an adapter: the place itself, or what a run wrote in it."""
    return next((folder for folder in (path, path / MODEL) if (folder / CONFIG).is_file()), None)


def base_of(adapter: Path) -> str:
    """Return the base model that an adapter names.

    Raises:
        ValueError: it names none, or its configuration cannot be read.
    """
    name = configuration(adapter).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{adapter / CONFIG} names no base model: give it as --model")
    return name


def masked(adapter: Path) -> bool:
    """Whether the adapter says that its base fills masks."""
    return (adapted.base_class(configuration(adapter)) or "").endswith("ForMaskedLM")


def copy(adapter: Path, goal: Path, base: str | None, dtype: str | None) -> dict[str, torch.Tensor]:
    """Copy an adapter with its tokenizer and return its tensors; `base` is the base model's name that it then has.

    Raises:
        ValueError: it has no weights in safetensors.
        OSError: no space, or the like.
    """
    _require_weights(adapter)
    for file in sorted(adapter.iterdir()):
        if file.is_file() and file.suffix in COPIED:
            shutil.copyfile(file, goal / file.name)
    if base is not None:
        config = configuration(adapter) | {"base_model_name_or_path": base}
        (goal / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    try:
        tensors = load_file(goal / WEIGHTS)
    except Exception as error:  # safetensors has an error of its own for everything
        raise ValueError(f"{adapter / WEIGHTS} cannot be read: {error}") from error
    if dtype is not None:
        tensors = {name: tensor.to(DTYPES[dtype]) for name, tensor in tensors.items()}
        save_file(tensors, goal / WEIGHTS, {"format": "pt"})
    return tensors


def merged(adapter: Path, load_base: Callable[[str, Choice | None], LanguageModel]) -> LanguageModel:
    """Return the base model with the adapter added to its weights, in their dtype; those of a quantised base are
    dequantised before.

    Raises:
        ValueError: peft is not installed, or the adapter has no weights in safetensors, does not fit, or is of a kind
            that cannot be merged.
    """
    _require_weights(adapter)
    loaded = adapted.load(str(adapter), load_base)
    try:
        dense_(loaded.model)
        model = loaded.model.merge_and_unload()
    except Exception as error:  # peft raises whatever its adapters raise
        kind = configuration(adapter).get("peft_type")
        raise ValueError(f"the {kind} adapter {adapter} cannot be merged: {error}; leave --merge out") from error
    return replace(loaded, model=model.eval())


def _require_weights(adapter: Path) -> None:
    if not (adapter / WEIGHTS).is_file():
        raise ValueError(f"{adapter}: no {WEIGHTS}: pickles are never read; save the adapter with a current peft")
    require_safe(adapter)
