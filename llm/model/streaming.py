"""Models that stay on disk: blocks in memory-mapped files of a working copy, which steps write to."""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import GenerationConfig

from llm.model import adapted, loading, quantising
from llm.model.free_memory import free_memory
from llm.model.language_model import DTYPES, LanguageModel
from llm.model.mapped import MappedBlocks, blocks_of, remember
from llm.model.working_copy import HELD, move_, require_room
from llm.quantised import Choice, Format, Quantisation, Scheme, gguf_file
from llm.quantised import folder as folder_of_codes
from llm.quantised.blank import blank, replace_tensors_
from llm.quantised.model import planned_bytes, quantise_layers_, to_quantise
from zobench.run.reading import file_bytes, json_object
from zobench.space.slots import Slots
from zobench.space.streamed import layers_of

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DEVICES = ("cpu", "cuda")
"""Types of devices on which streamed models are computed."""
Places = dict[str, tuple[Path, str]]
"""Name of a parameter -> the file that has it, and its name there."""
Fill = Callable[[nn.Module], None]
"""Brings numbers into a part of a model."""


def load(
    name: str,
    device: str = "cpu",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    beside: Path | None = None,
    evict: bool | None = None,
    quantize: Choice | None = None,
    slots: bool | None = None,
) -> LanguageModel:
    """Return the model that `loading.load` would, with its weights and codes in memory-mapped files of a working copy,
    which never are in memory as a whole; the folder of the model is only read.

    Args:
        name: the name, or the folder, of a model whose weights are in safetensors files on this machine, or in a GGUF
            file.
        device: "cpu", or "cuda": there layers are copied from the working copy into slots of the device, and back.
        dtype: the dtype of the weights.
        trust_remote_code: run the code that comes with the model.
        beside: the folder on whose disk the working copy lies, without a name and so gone with the process; by default
            that of temporary files.
        evict: whether blocks leave the page cache after their use; by default, if the model is larger than half of the
            memory that is free.
        quantize: how its layers are quantised, each as its weights are read; a GGUF file without it is dequantised.
        slots: whether layers are computed in slots of the device; by default, if it has memory of its own.

    Raises:
        ValueError: as for `loading.load`; or the model has no list of layers, an adapter, or weights on the hub; or
            another device; or the working copy could not be written.
    """
    require_possible(name, device)
    read = partial(_read, beside or Path(tempfile.gettempdir()), evict, quantize)
    loaded = loading.load(name, "cpu", dtype, trust_remote_code, quantize, read)
    place = loading.require_device(device)
    if in_slots(place) if slots is None else slots:
        _put_in_slots(loaded.model, place)
    return loaded


def in_slots(device: torch.device) -> bool:
    """Return whether layers are copied to a device, which has memory of its own."""
    return device.type != "cpu"


def _put_in_slots(model: Any, device: torch.device) -> None:
    before = blocks_of(model)
    assert before is not None  # since `_read`
    blocks = MappedBlocks(before.files, None, before.evict)
    blocks.slots = Slots(model, layers_of(model), device, blocks)
    remember(model, blocks)


def require_possible(name: str, device: str = "cpu") -> None:
    """Refuse, before anything is read, a model that cannot be streamed, or a device on which none is.

    Raises:
        ValueError: another device than a CPU or CUDA, an adapter, or a model of the hub; or it cannot be found.
    """
    if loading.require_device(device).type not in DEVICES:
        raise ValueError(
            f"device is {device!r}, but the streamed engine computes on a CPU or CUDA: give --device cpu, or {HELD}"
        )
    if adapted.is_adapter(name):
        raise ValueError(
            f"{name} is an adapter, whose base the streamed engine does not read: write both as one model by `python "
            f"-m llm export {name} --merge --to FOLDER` and give that, or {HELD}"
        )
    if loading.hub_id(name):
        raise ValueError(
            "the streamed engine reads files of this machine, and this model is on the hub: download it into a folder "
            f"(`hf download {name} --local-dir FOLDER`) and give that, or {HELD}"
        )


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
        if isinstance(quantize, Scheme):
            raise ValueError(f"--engine streamed takes no fake-quantised layers ({quantize}): {HELD}")
        return load(name, device, dtype, trust_remote_code, beside, quantize=quantize)
    return loading.load(name, device, dtype, trust_remote_code, quantize)


def _read(
    beside: Path,
    evict: bool | None,
    quantize: Choice | None,
    source: str,
    gguf: str | None,
    dtype: str,
    options: dict[str, Any],
) -> tuple[Any, str]:
    """As `loading`'s own reader, with the weights mapped."""
    config, made = loading.configured(source, gguf, options)
    model = blank(loading.maker(made, config, dtype, options))
    model.tie_weights()
    layers_of(model)  # refuses a model without layers before anything is read
    lost, format = "", quantize.format if quantize else None
    fill: Fill = lambda part: None  # noqa: E731
    if gguf:
        fill = gguf_file.Filling(model, Path(source) / gguf, DTYPES[dtype], quantising.keeps_codes(quantize))
    elif folder_of_codes.is_folder(Path(source)):
        folder_of_codes.fill_(model, Path(source), DTYPES[dtype])  # with views of its files, which nobody has read
    else:
        places, info = _places(model, _keys(Path(source)))
        lost = loading.lost(model, info, config)
        fill = _Filling(model, places, DTYPES[dtype])
    size, free = planned_bytes(model, format, wide=True), free_memory("cpu")
    require_room(beside, size)
    rounded = _rounding(model, format, fill) if format else fill
    move_(model, beside, 2 * size > (free or 0) if evict is None else evict, rounded)
    if quantize:
        setattr(model, adapted.CHOSEN, quantize)
    if (Path(source) / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(source)
    return model, lost


def _rounding(model: Any, format: Format, fill: Fill) -> Fill:
    """What fills a part, and then rounds its layers to codes."""
    chosen = to_quantise(model)

    def filled(part: nn.Module) -> None:
        fill(part)
        inside = set(part.modules())
        mine = {name: module for name, module in chosen.items() if module in inside}
        quantise_layers_(model, mine, format)

    return filled


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


class _Filling:
    """Brings the numbers of files into a part of a blank model; buffers get theirs at once."""

    def __init__(self, model: Any, places: Places, dtype: torch.dtype) -> None:
        self.model, self.places, self.dtype = model, places, dtype
        self._state = model.state_dict(keep_vars=True)
        tied = {id(p): name for name, p in model.named_parameters()}
        self._first: dict[int, str] = {}
        for name in places:  # of tied weights that under the first name, as from_pretrained reads them
            tensor = self._state[name]
            if id(tensor) not in self._first or tied.get(id(tensor)) == name:
                self._first[id(tensor)] = name
            if not isinstance(tensor, nn.Parameter):
                tensor.copy_(_tensor(places[name]))

    def __call__(self, part: nn.Module) -> None:
        values = {id(p): nn.Parameter(self._value(p), p.requires_grad) for p in part.parameters() if p.is_meta}
        replace_tensors_(self.model, values)

    def _value(self, p: nn.Parameter) -> Tensor:
        return _tensor(self.places[self._first[id(p)]]).to(self.dtype).contiguous()


def _tensor(place: tuple[Path, str]) -> Tensor:
    with safe_open(place[0], framework="pt") as opened:
        tensor: Tensor = opened.get_tensor(place[1])
    return tensor
