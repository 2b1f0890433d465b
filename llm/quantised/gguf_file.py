"""GGUF files whose codes are taken as they are, and written back.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; the order of rows and the names of layers are
those of transformers' reader.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from llm.quantised.blank import blank, replace_tensors_, require_filled, require_shape
from llm.quantised.formats import Format, Packed
from llm.quantised.layers import TILE, Quantised, QuantisedEmbedding, QuantisedLinear
from llm.quantised.model import codes_of, layers, replace_

TYPES = {
    "Q8_0": Format("int8", 8, False),
    "Q4_0": Format("int4", 4, False),
    "Q4_1": Format("int4-asymmetric", 4, True),
}
"""The formats of GGUF's types."""
DEQUANTISE = "leave --quantize out, which dequantises the file"
IN_MEMORY = "give --engine in-forward, or write the model into a folder (python -m llm export FILE --to FOLDER)"
"""Ways out."""
PLAIN = ("F32", "F16", "BF16")
ROWS_ALONE = ("TensorProcessor", "LlamaTensorProcessor")
"""Readers of transformers that do nothing to a matrix, or change the order of its rows."""


def open_(file: Path) -> Any:
    """Return the reader of a file, which maps it into memory.

    Raises:
        ValueError: it is no GGUF file.
    """
    import gguf

    try:
        return gguf.GGUFReader(file)
    except Exception as error:  # it has errors of its own for everything
        raise ValueError(f"{file} cannot be read as GGUF: {' '.join(str(error).split())}") from error


def reader(file: Path) -> Any:
    """Return the reader of a file whose codes are kept.

    Raises:
        ValueError: as `open_`, or a tensor of it is of another type than these.
    """
    opened = open_(file)
    for tensor in opened.tensors:
        kind = tensor.tensor_type.name
        if kind not in (*TYPES, *PLAIN):
            raise ValueError(
                f"{file}: tensor {tensor.name} is of the type {kind}; --quantize gguf takes {', '.join(TYPES)}: "
                f"{DEQUANTISE}"
            )
    return opened


def unpack_blocks(data: np.ndarray[Any, Any], format: Format) -> Packed:
    """Return the codes, scales and zero points of a tensor's bytes (out, bytes a row): each block of 32 weights is its
    scale, its zero point if it has one, both float16, and its codes.
    """
    size = 2 * (1 + format.asymmetric)
    blocks = torch.from_numpy(np.array(data)).unflatten(-1, (-1, size + format.group * format.bits // 8))
    floats = blocks[..., :size].contiguous().view(torch.float16)
    zeros = floats[..., 1].contiguous() if format.asymmetric else None
    return Packed(blocks[..., size:].contiguous(), floats[..., 0].contiguous(), zeros)


def pack_blocks(layer: Quantised, order: Tensor | None = None) -> np.ndarray[Any, Any]:
    """Return a layer as the bytes of a tensor in GGUF, (out, bytes a row), its rows in this order."""
    floats = [part.detach().half() for part in (layer.scales, layer.zeros) if part is not None]
    head = torch.stack(floats, -1).contiguous().view(torch.uint8)
    blocks = torch.cat([head, layer.codes], -1).flatten(1)
    return (blocks if order is None else blocks[order]).contiguous().cpu().numpy()


class Names:
    """The layers of a model as a GGUF file names them, and the order of their rows there."""

    def __init__(self, model: Any, config: dict[str, Any], architecture: str, way: str = DEQUANTISE) -> None:
        from transformers import modeling_gguf_pytorch_utils as made

        maker = made.TENSOR_PROCESSORS.get(architecture, made.TensorProcessor)
        if maker.__name__ not in ROWS_ALONE:
            raise ValueError(
                f"the architecture {architecture} changes its matrices in GGUF files, so that their tensors cannot be "
                f"taken as they are: {way}"
            )
        self._processor = maker(config=config)
        self.of: dict[str, str] = made.get_gguf_hf_weights_map(model, self._processor)

    def order(self, name: str, rows: int) -> Tensor:
        """Return which row of a GGUF tensor is row i of the layer, (rows,)."""
        numbers = np.arange(rows)[:, None]
        return torch.from_numpy(np.array(self._processor.process(weights=numbers, name=name).weights[:, 0]))


def _names(model: Any, opened: Any, way: str = DEQUANTISE) -> Names:
    """The names of a model's layers in an opened file."""
    return Names(model, model.config.to_dict(), architecture(opened), way)


def architecture(opened: Any) -> str:
    """Return the architecture that an opened file names."""
    field = opened.fields["general.architecture"]
    return bytes(field.parts[field.data[0]]).decode()


class _Place(NamedTuple):
    """A tensor of a file, its format if its codes are kept, and what has its numbers in the model: codes, scales and
    zero points of a layer, or a parameter.
    """

    tensor: Any
    format: Format | None
    held: tuple[Tensor, ...]


class Filling:
    """Brings the tensors of a file into a blank model, a part of it at a time: a tensor is unpacked when its part is
    called for. With `codes` the model has the layers of the file from the beginning, without numbers; else tensors are
    dequantised to the dtype, to the bits of transformers' reader.

    Raises:
        ValueError: as `reader` or `open_`, and `Names`; or a tensor of the model is missing or of another shape.
    """

    def __init__(self, model: Any, file: Path, dtype: torch.dtype, codes: bool = True) -> None:
        opened = reader(file) if codes else open_(file)
        self.model, self.dtype = model, dtype
        self._names = _names(model, opened, DEQUANTISE if codes else IN_MEMORY)
        tied, held = _tied(model), {}
        for tensor in opened.tensors:
            name, format = self._names.of.get(tensor.name), TYPES.get(tensor.tensor_type.name) if codes else None
            if name is None and format:
                raise ValueError(f"{file}: tensor {tensor.name} has no place in {type(model).__name__}")
            if name is not None:
                parameter = require_shape(model, name, [int(size) for size in reversed(tensor.shape)])
                layer = _replace_(model, name.removesuffix(".weight"), format, dtype) if format else None
                held[name] = _Place(tensor, format, _parts(layer) if layer is not None else (parameter,))
        if tied and codes:
            _tie_(model)
        self._places = list(held.values())
        require_filled(model, str(file), {id(tensor) for place in self._places for tensor in place.held})

    def __call__(self, part: nn.Module) -> None:
        """Fill what has no numbers yet of a part of the model."""
        blank = {id(tensor) for tensor in (*part.parameters(), *codes_of(part).values()) if tensor.is_meta}
        values: dict[int, Tensor] = {}
        for place in self._places:
            if id(place.held[0]) in blank:
                values |= zip(map(id, place.held), self._numbers(place), strict=True)
        replace_tensors_(self.model, values)

    def _numbers(self, place: _Place) -> Iterator[Tensor]:
        rows = self._names.order(place.tensor.name, int(place.tensor.shape[-1]))
        if place.format is not None:
            packed = unpack_blocks(place.tensor.data[rows.numpy()], place.format)
            read = [part for part in packed if part is not None]
        else:
            read = [_dequantised(place.tensor, rows, self.dtype)]
        for before, after in zip(place.held, read, strict=True):
            yield nn.Parameter(after, before.requires_grad) if isinstance(before, nn.Parameter) else after


def _dequantised(tensor: Any, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows of a tensor in this order and dtype; no more than `TILE` entries, or a row, are held in float32."""
    import gguf

    shape = [int(size) for size in reversed(tensor.shape)]
    numbers, count = torch.empty(shape, dtype=dtype), max(1, TILE * shape[0] // math.prod(shape))
    for into, chosen in zip(numbers.split(count), rows.split(count), strict=True):
        into.copy_(torch.from_numpy(np.array(gguf.dequantize(tensor.data[chosen.numpy()], tensor.tensor_type))))
    return numbers


def fill_(model: Any, file: Path, dtype: torch.dtype) -> None:
    """Put the tensors of a file into a blank model: codes as they are, floats in the dtype; errors as `Filling`."""
    Filling(model, file, dtype)(model)


def _replace_(model: nn.Module, name: str, format: Format, dtype: torch.dtype) -> Quantised:
    """Put a quantised layer without numbers in the place of a dense one, and return it."""
    before = model.get_submodule(name)
    if not isinstance(before, nn.Embedding | nn.Linear):
        raise ValueError(f"layer {name} is a {type(before).__name__}, which cannot be quantised")
    packed = format.blank(*before.weight.shape)
    layer: Quantised
    if isinstance(before, nn.Embedding):
        layer = QuantisedEmbedding(format, packed, dtype, before.padding_idx)
    else:
        layer = QuantisedLinear(format, packed, before.bias)
    replace_(model, name, layer)
    return layer


def _parts(layer: Quantised) -> tuple[Tensor, ...]:
    return tuple(part for part in (layer.codes, layer.scales, layer.zeros) if part is not None)


def _tied(model: Any) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _tie_(model: Any) -> None:
    """Let the head read the codes of the embedding."""
    embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(embedding, Quantised) and not isinstance(head, Quantised):
        layer = QuantisedLinear(embedding.format, Packed(embedding.codes, embedding.scales.data, None), head.bias)
        layer.share(embedding)
        (name,) = (name for name, module in model.named_modules() if module is head)
        replace_(model, name, layer)


def write(model: Any, like: Path, file: Path) -> None:
    """Write the model as a GGUF file: metadata of the file `like`, whose codes the model has, and the model's numbers.

    Raises:
        ValueError: a layer is not as in that file.
    """
    import gguf

    opened, known = reader(like), layers(model)
    names = _names(blank(lambda: type(model)(model.config)), opened)  # by the names of dense layers
    writer = gguf.GGUFWriter(file, architecture(opened))
    _copy_metadata(opened, writer)
    parameters = dict(model.named_parameters())
    for tensor in opened.tensors:
        data, name = np.array(tensor.data), names.of.get(tensor.name)
        if name is not None and tensor.tensor_type.name in TYPES:
            layer = known[name.removesuffix(".weight")]
            back = torch.argsort(names.order(tensor.name, layer.shape[0]))
            data = pack_blocks(layer, back)
        elif name is not None:
            back = torch.argsort(names.order(tensor.name, int(tensor.shape[-1])))
            data = parameters[name].detach().float().cpu()[back].contiguous().numpy()
            data = data if tensor.tensor_type.name == "F32" else data.astype(np.float16)
        writer.add_tensor(tensor.name, data, raw_dtype=tensor.tensor_type)
    _close(writer)


def _close(writer: Any) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_metadata(opened: Any, writer: Any) -> None:
    import gguf

    for name, field in opened.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture" or not field.types:
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, inner)
