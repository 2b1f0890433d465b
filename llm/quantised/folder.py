"""Folders of quantised models: codes, scales and zero points as they are, beside the configuration of the model.

The weights have a file name of their own: transformers, which knows no codes, would find none of its tensors in
model.safetensors and begin with random ones. `python -m llm export` writes dense folders and GGUF files for it.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from llm.quantised.blank import put_, require_filled
from llm.quantised.formats import FORMATS, Format, Packed
from llm.quantised.layers import Quantised, QuantisedEmbedding, QuantisedLinear
from llm.quantised.model import HALF, codes_of, layers, replace_
from zobench.run.reading import file_bytes, json_object

KINDS = {
    **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16},
    "U8": torch.uint8,
}
"""Dtypes by their names in safetensors files."""
WEIGHTS, LAYERS = "quantised.safetensors", "quantised.json"


def is_folder(folder: Path) -> bool:
    """Return whether a folder holds a quantised model."""
    return (folder / LAYERS).is_file()


def write(model: Any, folder: Path) -> None:
    """Write the weights and the configuration of a model; scales and zero points in float16."""
    folder.mkdir(parents=True, exist_ok=True)
    first: dict[int, str] = {}
    about: dict[str, Any] = {}
    for name, layer in layers(model).items():
        same = first.setdefault(id(layer.codes), name)
        format: dict[str, Any] = {"format": layer.format.name, "group": layer.format.group}
        if isinstance(layer, QuantisedLinear) and layer.activations is not None:
            format["activations"] = layer.activations
        about[name] = format if same == name else {"same": same}
    tensors = {}
    for name, tensor in (dict(model.named_parameters()) | codes_of(model)).items():
        owner, _, leaf = name.rpartition(".")
        if "same" in about.get(owner, {}) and leaf != "bias":
            continue
        half = owner in about and leaf in ("scales", "zeros")
        tensors[name] = (tensor.detach().to(HALF) if half else tensor.detach()).contiguous()
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})
    (folder / LAYERS).write_text(json.dumps({"layers": about}, indent=1) + "\n", encoding="utf-8")
    model.config.save_pretrained(folder)


def fill_(model: Any, folder: Path, dtype: torch.dtype, shapes_alone: bool = False) -> None:
    """Put the weights of a folder into a blank model: codes as they are, dense weights in the dtype; or tensors of
    their shapes, without numbers, on the meta device.

    Raises:
        ValueError: the files do not fit the model or each other, or are damaged.
    """
    said = json_object(file_bytes(folder / LAYERS), str(folder / LAYERS)).get("layers")
    if not isinstance(said, dict):
        raise ValueError(f'{folder / LAYERS}: wanted a JSON object with a table "layers"')
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as opened:
            names, get = set(opened.keys()), partial(_shape, opened) if shapes_alone else opened.get_tensor
            for name, about in said.items():
                if "same" not in about:
                    _put_layer_(model, name, about, folder, get, names, dtype)
            for name, about in said.items():
                if "same" in about:
                    _share_(model, name, about["same"])
            dense = [n for n in names if n.rpartition(".")[0] not in said or n.endswith(".bias")]
            for name in dense:
                put_(model, name, get(name).to(dtype))
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder / WEIGHTS} and {folder / LAYERS} do not fit the model: {error!r}") from error
    if not shapes_alone:
        require_filled(model, str(folder / WEIGHTS))


def _shape(opened: Any, name: str) -> Tensor:
    """A tensor of a file without its numbers."""
    about = opened.get_slice(name)
    return torch.empty(about.get_shape(), dtype=KINDS[about.get_dtype()], device="meta")


def _activations(about: dict[str, Any], folder: Path) -> int | None:
    bits = about.get("activations")
    if bits is not None and (type(bits) is not int or not 1 <= bits <= 16):
        raise ValueError(f"{folder / LAYERS}: activations of {bits!r} bits")
    return bits


def _format(about: dict[str, Any], folder: Path) -> Format:
    name, group = about.get("format"), about.get("group")
    if name not in FORMATS or type(group) is not int or group < 4 or group % 4:
        raise ValueError(f"{folder / LAYERS}: unknown format {name!r} in groups of {group!r}")
    return Format(name, *FORMATS[name], group)


def _put_layer_(
    model: Any,
    name: str,
    about: dict[str, Any],
    folder: Path,
    get: Callable[[str], Tensor],
    names: set[str],
    dtype: torch.dtype,
) -> None:
    before, format = model.get_submodule(name), _format(about, folder)
    zeros, smoothing = (get(f"{name}.{leaf}") if f"{name}.{leaf}" in names else None for leaf in ("zeros", "smoothing"))
    packed = Packed(get(f"{name}.codes"), get(f"{name}.scales"), zeros)
    _require_fitting(name, before, format, packed)
    if isinstance(before, nn.Embedding):
        replace_(model, name, QuantisedEmbedding(format, packed, dtype, before.padding_idx))
    else:
        if smoothing is not None and (smoothing.shape, smoothing.dtype) != (before.weight.shape[1:], torch.float32):
            raise ValueError(f"layer {name} reads {before.weight.shape[1]} channels, which its smoothing does not fit")
        replace_(model, name, QuantisedLinear(format, packed, before.bias, smoothing, _activations(about, folder)))


def _require_fitting(name: str, before: nn.Module, format: Format, packed: Packed) -> None:
    """Refuse parts of a layer that do not fit the layer of the model or each other."""
    if not isinstance(before, nn.Embedding | nn.Linear):
        raise ValueError(f"layer {name} is a {type(before).__name__}, which cannot be quantised")
    rows, columns = before.weight.shape
    groups = (rows, columns // format.group)
    wanted = (*groups, format.group * format.bits // 8)
    floats = [part for part in (packed.scales, packed.zeros) if part is not None]
    fits = packed.codes.shape == wanted and packed.codes.dtype == torch.uint8 and columns % format.group == 0
    if not fits or len(floats) != 1 + format.asymmetric or any(part.shape != groups for part in floats):
        raise ValueError(f"layer {name} is {rows} x {columns}, which its codes and scales in the file do not fit")


def _share_(model: Any, name: str, other: str) -> None:
    """Let a layer hold the codes of another."""
    source, before = model.get_submodule(other), model.get_submodule(name)
    if not isinstance(source, Quantised):
        raise KeyError(other)
    layer = QuantisedLinear(source.format, Packed(source.codes, source.scales.data, None), before.bias)
    layer.share(source)
    replace_(model, name, layer)
