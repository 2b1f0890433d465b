"""The files of a model that may be read: safetensors and GGUF in its folder, never pickles and never code."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch

from zobench.run.reading import file_bytes, json_object, json_value

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".pkl", ".pickle")
WEIGHTS = (".safetensors", ".gguf")
INDEX = ".safetensors.index.json"
NEVER = "pickles can run code and are never read; convert them to safetensors where you trust them"
IMPLEMENTATIONS = ("_attn_implementation", "_experts_implementation")


def require_safe(folder: Path, gguf: str | None = None) -> None:
    """Refuse a folder that would have something else read than safetensors or GGUF in it. A pickle that nobody reads
    may lie beside them. What is no folder is left to `pickles_refused`.

    Raises:
        ValueError: its weights are pickles alone, an index names a file that is no safetensors or lies elsewhere, or a
            file other than weights is a link that leads out of the folder.
    """
    if gguf is not None or not folder.is_dir():  # a GGUF file is read alone, wherever it lies
        return
    files = sorted(folder.iterdir())
    for file in files:
        _require_here(file, folder)
    pickles = [file.name for file in files if file.suffix.lower() in PICKLES]
    if pickles and not any(file.suffix == ".safetensors" or _is_index(file) for file in files):
        raise ValueError(f"{folder} has its weights in {pickles[0]} alone: {NEVER}")
    for file in files:
        if _is_index(file):
            _check_index(file)


def damage(folder: Path) -> str:
    """Return in words which file of a folder should be JSON and is not, "" where none: readers do not name theirs."""
    for file in sorted(folder.glob("*.json")):
        try:
            json_value(file_bytes(file), str(file))
        except (OSError, ValueError) as error:
            return str(error)
    return ""


def require_plain(config: Any) -> None:
    """Refuse a configuration that names another file of weights than safetensors, or code of the hub: a kernel.

    Raises:
        ValueError: it does so.
    """
    named = getattr(config, "transformers_weights", None)
    if named is not None and not _is_plain(named, (".safetensors", INDEX)):
        raise ValueError(f"transformers_weights of config.json is {named!r}: {_wanted(str(named))}")
    for part in (config, *(value for value in vars(config).values() if hasattr(value, "model_type"))):
        for name in IMPLEMENTATIONS:
            kernel = getattr(part, name, None)
            if isinstance(kernel, str) and "/" in kernel:
                raise ValueError(
                    f"{name.removeprefix('_')} of config.json is {kernel!r}, code from the hub, which a file may not "
                    "ask for: remove it"
                )


@contextmanager
def pickles_refused() -> Iterator[None]:
    """Make torch.load raise ValueError within: transformers falls back to it, and repositories of the hub, which name
    their files as they like, are not seen before.
    """

    def refuse(file: Any, *_: Any, **__: Any) -> NoReturn:
        raise ValueError(f"{file} is a pickle: {NEVER}")

    usual = torch.load
    torch.load = refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.load = usual


def leads_out(file: Path, folder: Path) -> bool:
    """Return whether a file is a link out of its folder; those of the hub's cache lead to its blobs, and do not."""
    real = file.resolve()
    cached = real.parent.name == "blobs" and real.parent.parent.name.startswith("models--")
    return not cached and not real.is_relative_to(folder.resolve())


def _require_here(file: Path, folder: Path) -> None:
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise ValueError(f"{file} is neither a file nor a folder: remove it")
    if file.suffix not in WEIGHTS and leads_out(file, folder):
        raise ValueError(
            f"{file} is a link that leads out of the folder, and could copy a file of yours into the output: "
            "put a copy there, or remove it"
        )


def _is_index(file: Path) -> bool:
    return file.name.endswith(INDEX)


def _check_index(file: Path) -> None:
    try:
        names = list(json_object(file_bytes(file), str(file))["weight_map"].values())
    except (OSError, LookupError, AttributeError) as error:
        raise ValueError(f'{file}: wanted a JSON object with a table "weight_map": {error!r}') from None
    for name in names:
        if not _is_plain(name, (".safetensors",)):
            raise ValueError(f"{file} names {name!r}: {_wanted(str(name))}")


def _is_plain(name: Any, endings: tuple[str, ...]) -> bool:
    """Whether it is the name of such a file in the folder, or in one below it, however a system parts names."""
    parts = name.replace("\\", "/").split("/") if isinstance(name, str) else [""]
    return str(name).endswith(endings) and not {"", ".", ".."} & set(parts) and ":" not in str(name)


def _wanted(name: str) -> str:
    if name.lower().endswith(PICKLES):
        return NEVER
    return "weights are read from .safetensors in the model's own folder alone"
