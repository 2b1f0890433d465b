"""Models that stay on disk: blocks in memory-mapped files of a working copy, which steps write to."""

import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import GenerationConfig

from llm.model import adapted, loading
from llm.model.free_memory import free_memory
from llm.model.language_model import DTYPES, LanguageModel
from llm.model.mapped import MappedBlocks, MappedFile, remember
from llm.quantised import Quantisation
from llm.quantised import folder as folder_of_codes
from llm.quantised.blank import blank
from zobench.run.reading import file_bytes, json_object
from zobench.space.streamed import layers_of, owners

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HELD = "give --engine in-forward, which holds the model in memory"
Places = dict[str, tuple[Path, str]]
"""Name of a parameter -> the file that has it, and its name there."""


def load(
    name: str,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    beside: Path | None = None,
    evict: bool | None = None,
) -> LanguageModel:
    """Return the model that `loading.load` would, with its weights in memory-mapped files of a working copy, which
    never are in memory as a whole; the folder of the model is only read.

    Args:
        name: the name, or the folder, of a model whose weights are in safetensors files on this machine.
        device: "cpu".
        dtype: the dtype of the weights.
        trust_remote_code: run the code that comes with the model.
        beside: the folder on whose disk the working copy lies, without a name and so gone with the process; by default
            that of temporary files.
        evict: whether blocks leave the page cache after their use; by default, if the model is larger than half of the
            memory that is free.

    Raises:
        ValueError: as for `loading.load`; or the model has no list of layers, an adapter, weights in GGUF or on the
            hub; or another device than a CPU; or the working copy could not be written.
    """
    if loading.require_device(device).type != "cpu":
        raise ValueError(
            f"device is {device!r}, but the streamed engine computes on a CPU: give --device cpu, or {HELD}"
        )
    if adapted.is_adapter(name):
        raise ValueError(f"{name} is an adapter, whose base the streamed engine does not read: {HELD}")
    read = partial(_read, beside or Path(tempfile.gettempdir()), evict)
    return loading.load(name, device, dtype, trust_remote_code, read=read)


def load_for(
    engine: str,
    name: str,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    quantize: Quantisation | None = None,
    beside: Path | None = None,
) -> LanguageModel:
    """Return the model as a run with this engine loads it: arguments and errors as of `load` and `loading.load`."""
    if engine == "streamed":
        return load(name, device, dtype, trust_remote_code, beside)
    return loading.load(name, device, dtype, trust_remote_code, quantize)


def _read(
    beside: Path, evict: bool | None, source: str, gguf: str | None, dtype: str, options: dict[str, Any]
) -> tuple[Any, str]:
    """As `loading`'s own reader, with the weights mapped."""
    if gguf or not Path(source).is_dir():
        what = "in a GGUF file, which is quantised" if gguf else "on the hub"
        raise ValueError(
            f"the streamed engine reads safetensors files of a folder, and this model is {what}: download the model "
            f"into a folder and give that, or {HELD}"
        )
    if folder_of_codes.is_folder(Path(source)):
        raise ValueError(f"the streamed engine reads the weights of a dense model, and this one is quantised: {HELD}")
    config, made = loading.configured(source, gguf, options)
    model = blank(loading.maker(made, config, dtype, options))
    model.tie_weights()
    layers_of(model)  # refuses a model without layers before anything is read
    keys = _keys(Path(source))
    places, info = _places(model, keys)
    lost = loading.lost(model, info, config)
    tied = {id(p): name for name, p in model.named_parameters()}
    size, free = sum(p.numel() for p in model.parameters()) * DTYPES[dtype].itemsize, free_memory("cpu")
    _require_room(beside, size)
    _put(model, places, DTYPES[dtype], beside, 2 * size > (free or 0) if evict is None else evict, tied)
    if (Path(source) / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(source)
    return model, lost


def _keys(folder: Path) -> dict[str, Path]:
    """The names of the tensors in the files of a folder, each with its file."""
    index = folder / INDEX
    if index.is_file():
        table = json_object(file_bytes(index), str(index))["weight_map"]
        return {str(name): folder / str(file) for name, file in table.items()}
    with safe_open(folder / SINGLE, framework="pt") as opened:
        return dict.fromkeys(opened.keys(), folder / SINGLE)


def _places(model: Any, keys: Mapping[str, Path]) -> tuple[Places, dict[str, Any]]:
    """Where each tensor of the model is, and what `from_pretrained` would tell: names without and with the prefix of
    the base model are the same, and one name of tied weights is enough.
    """
    state, prefix = model.state_dict(keep_vars=True), f"{getattr(model, 'base_model_prefix', '')}."
    found: Places = {}
    unexpected = []
    for key, file in keys.items():
        named = next((n for n in (key, prefix + key, key.removeprefix(prefix)) if n in state), None)
        if named is None:
            unexpected.append(key)
        else:
            found[named] = (file, key)
    known = {id(state[name]) for name in found}
    missing = [name for name, tensor in state.items() if name not in found and id(tensor) not in known]
    mismatched = []
    for name, (file, key) in found.items():
        with safe_open(file, framework="pt") as opened:
            shape = tuple(opened.get_slice(key).get_shape())
        if shape != tuple(state[name].shape):
            mismatched.append((name, shape, tuple(state[name].shape)))
    return found, {"missing_keys": missing, "unexpected_keys": unexpected, "mismatched_keys": mismatched}


def _put(model: Any, places: Places, dtype: torch.dtype, beside: Path, evict: bool, tied: dict[int, str]) -> None:
    """Give the model mapped parameters, block by block, and its buffers their values from the files."""
    of_layer = owners(layers_of(model))
    state, first = model.state_dict(keep_vars=True), {}
    for name in places:  # of tied weights that under the first name, as from_pretrained reads them
        tensor = state[name]
        if id(tensor) not in first or tied.get(id(tensor)) == name:
            first[id(tensor)] = name
    groups: dict[int, dict[str, nn.Parameter]] = {}
    for p in model.parameters():
        groups.setdefault(of_layer.get(p, -1), {})[first[id(p)]] = p
    folder = Path(tempfile.mkdtemp(prefix=".streamed-", dir=beside))
    try:
        files = {k: _mapped(folder / f"{k}.safetensors", group, places, dtype) for k, group in sorted(groups.items())}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for name in set(places) - {n for group in groups.values() for n in group}:
        if not isinstance(state[name], nn.Parameter):
            state[name].copy_(_tensor(places[name]))
    new = {id(p): nn.Parameter(files[k].tensors[n], p.requires_grad) for k, g in groups.items() for n, p in g.items()}
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                module._parameters[name] = new[id(p)]
    rest = files.pop(-1, None)
    remember(model, MappedBlocks(files, rest, evict))


def _mapped(file: Path, group: Mapping[str, nn.Parameter], places: Places, dtype: torch.dtype) -> MappedFile:
    tensors = {name: _tensor(places[name]).to(dtype).contiguous() for name in group}
    mapped = MappedFile(file, tensors)
    mapped.release(evict=True)
    return mapped


def _tensor(place: tuple[Path, str]) -> Tensor:
    with safe_open(place[0], framework="pt") as opened:
        tensor: Tensor = opened.get_tensor(place[1])
    return tensor


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(
            f"the working copy of the weights takes {size / 2**30:.3g} GiB, but {free / 2**30:.3g} GiB are free below "
            f"{folder}: give another --out, or {HELD}"
        )
