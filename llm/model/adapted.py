"""Models with an adapter of peft: folders of adapter_config.json and adapter_model.safetensors beside a named base."""

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from llm.model.adapter_patterns import require_quick
from llm.model.files import require_safe
from llm.model.language_model import LanguageModel
from llm.quantised import Choice
from zobench.naming import require_known
from zobench.products import widen_products_
from zobench.run.reading import file_bytes, json_object

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
QUANTISED = "quantised_base.json"
CHOSEN = "zobench_quantised"
"""Attribute of a model that was quantised on loading: its `Choice`."""
KINDS = ("LORA", "PREFIX_TUNING", "PROMPT_TUNING")
PLAIN = (True, False, "gaussian")
"""Initialisations of LoRA that leave the base as it is."""


def is_adapter(name: str) -> bool:
    """Whether the name is that of a folder with an adapter alone."""
    folder = Path(name).expanduser() if name and "\0" not in name else None
    return folder is not None and (folder / CONFIG).is_file() and not (folder / "config.json").exists()


def is_adapted(language_model: LanguageModel) -> bool:
    """Whether peft has wrapped something around the model."""
    return bool(getattr(language_model.model, "peft_config", None))


def peft_library() -> Any:
    """Return peft.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import peft
    except ImportError:
        raise ValueError("adapters need peft: pip install 'peft>=0.20'") from None
    return peft


@contextmanager
def quietly() -> Iterator[None]:
    """Keep silent about what peft reads and transformers renames, and about what it sets right itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", message="fan_in_fan_out")
        yield


def load(folder: str, load_base: Callable[[str, Choice | None], LanguageModel]) -> LanguageModel:
    """Return the base that the folder names, with the folder's adapter trainable on it and all else frozen.

    Raises:
        ValueError: the folder is not whole, its adapter is of another kind or would change the base or run code, or its
            base is an adapter too.
    """
    peft, place = peft_library(), Path(folder).expanduser()
    config = _checked(place)
    base_name = str(config["base_model_name_or_path"])
    if is_adapter(base_name):
        raise ValueError(f"{place / CONFIG}: its base {base_name!r} is an adapter too: merge that into a model first")
    if not (place / WEIGHTS).is_file():
        raise ValueError(f"{place} has no {WEIGHTS}: an adapter is read from safetensors alone")
    require_safe(place)
    base = load_base(base_name, quantised_as(place))
    try:
        with quietly(), torch.random.fork_rng(devices=[]):
            known = peft.PeftConfig.from_pretrained(str(place), local_files_only=True)
            known.inference_mode, known.base_model_name_or_path = False, None
            if config["peft_type"] == "PROMPT_TUNING":
                known.prompt_tuning_init = peft.PromptTuningInit.RANDOM  # another would look for a tokenizer
            model = peft.get_peft_model(base.model, known)
            widen_products_(model)
            _fill(model, load_file(place / WEIGHTS, device=str(base.device)))
    except Exception as error:  # peft and safetensors have errors of their own
        raise ValueError(f"{place}: the adapter does not fit {base_name!r}: {' '.join(str(error).split())}") from error
    return replace(base, name=folder, model=model.eval(), weights=f"{base.weights}, with the adapter of {place.name}")


def _fill(model: Any, tensors: dict[str, Any]) -> None:
    """Put the numbers of an adapter into the place that was made for them."""
    result = peft_library().set_peft_model_state_dict(model, tensors)
    if model.active_peft_config.is_prompt_learning:  # which peft itself checked
        return
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    left = [*sorted(trained.intersection(result.missing_keys)), *result.unexpected_keys]
    if left:
        raise ValueError(f"{WEIGHTS} and {CONFIG} differ in {left[0]}")


def configuration(folder: Path) -> dict[str, Any]:
    """Return what an adapter's folder says of it.

    Raises:
        ValueError: its file cannot be read, or holds no JSON object.
    """
    file = folder / CONFIG
    try:
        return json_object(file_bytes(file), str(file))
    except OSError as error:
        raise ValueError(f"{file}: {error}") from None


def _checked(folder: Path) -> dict[str, Any]:
    """The configuration of an adapter that only adds numbers of its own."""
    file, config = folder / CONFIG, configuration(folder)
    if not isinstance(config.get("base_model_name_or_path"), str):
        raise ValueError(f"{file} does not name its base: give base_model_name_or_path")
    require_known(str(config.get("peft_type")), KINDS, f"peft_type in {file}:")
    unwanted = [name for name in ("megatron_config", "modules_to_save") if config.get(name)]
    if config.get("auto_mapping") and not base_class(config):
        unwanted.append("auto_mapping")
    if config.get("init_lora_weights", True) not in PLAIN:
        unwanted.append("init_lora_weights")
    if unwanted:
        raise ValueError(f"{file} has {unwanted[0]} = {config[unwanted[0]]!r}, which is not supported here")
    require_quick(config, file)
    return config


def base_class(config: Mapping[str, Any]) -> str | None:
    """Return the class of transformers that an adapter's configuration gives its base, as peft writes it where no task
    type says so: of a masked model.
    """
    about = config.get("auto_mapping")
    found = about if isinstance(about, dict) else {}
    name, place = str(found.get("base_model_class")), str(found.get("parent_library"))
    return name if place.startswith("transformers.models.") else None


def save(language_model: LanguageModel, folder: Path) -> None:
    """Write the adapter alone, with the name of its base as `load` finds it again."""
    model = language_model.model
    for config in model.peft_config.values():
        config.base_model_name_or_path = base_name(language_model)
    with quietly():
        model.save_pretrained(folder, save_embedding_layers=False)  # its "auto" asks the hub
    chosen = getattr(model.get_base_model(), CHOSEN, None)
    if chosen is not None:
        (folder / QUANTISED).write_text(json.dumps(chosen._asdict()) + "\n", encoding="utf-8")


def quantised_as(folder: Path) -> Choice | None:
    """Return how the base of an adapter was quantised while the adapter was trained, None if it was not.

    Raises:
        ValueError: the file that says so is damaged.
    """
    file = folder / QUANTISED
    if not file.is_file():
        return None
    said = json_object(file_bytes(file), str(file))
    name, group = said.get("name"), said.get("group")
    if not isinstance(name, str) or type(group) is not int:
        raise ValueError(f"{file} says {said!r}: wanted a name and a group")
    return Choice.of(name, group)


def base_name(language_model: LanguageModel) -> str:
    """Return the name that the base was loaded by; a folder or a file with its whole path."""
    name = language_model.name
    if is_adapter(name):
        return str(_checked(Path(name).expanduser())["base_model_name_or_path"])
    place = Path(name).expanduser()
    return str(place.resolve()) if place.exists() else name
