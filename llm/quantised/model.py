"""What is done with all quantised layers of a model."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from llm.quantised.formats import Format
from llm.quantised.layers import Quantised, QuantisedEmbedding, QuantisedLinear

HALF = torch.float16
"""The dtype of scales and zero points in files."""


def layers(model: nn.Module) -> dict[str, Quantised]:
    """Return the quantised layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Quantised)}


def is_quantised(model: nn.Module) -> bool:
    """Return whether the model has a quantised layer."""
    return bool(layers(model))


def to_quantise(model: nn.Module) -> dict[str, nn.Linear]:
    """Return the layers that a choice of format quantises: every Linear but the head, whose matrix is often that of the
    embedding, which stays as it is.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    found = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in found.items() if module is not head}


def check_layers(model: nn.Module, option: str) -> None:
    """Refuse a model with weights that no option quantises; it may be on the meta device.

    Raises:
        ValueError: a layer with a matrix is neither Linear nor Embedding, or there is no Linear.
    """
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None and weight.ndim > 1 and not isinstance(module, nn.Linear | nn.Embedding):
            raise ValueError(
                f"layer {name} is a {type(module).__name__}, which cannot be quantised: only Linear layers can; leave "
                f"{option} out, or give another model"
            )
    if not to_quantise(model):
        raise ValueError(f"{type(model).__name__} has no Linear layer beside its head: leave {option} out")


def check_model(model: nn.Module, format: Format) -> None:
    """Refuse a model that the format does not fit; it may be on the meta device.

    Raises:
        ValueError: as `check_layers`, or a group does not divide a row.
    """
    check_layers(model, "--quantize")
    for name, module in to_quantise(model).items():
        if module.in_features % format.group:
            fitting = [group for group in (128, 64, 32, 16, 8, 4) if module.in_features % group == 0]
            way = f"give --group {fitting[0]}" if fitting else "leave --quantize out"
            raise ValueError(
                f"a row of layer {name} has {module.in_features} weights, which groups of {format.group} do not "
                f"divide: {way}"
            )


def quantise_(model: nn.Module, format: Format) -> None:
    """Replace the Linear layers of the model by quantised ones, one by one, so that each dense matrix goes as its codes
    come.

    Raises:
        ValueError: as `check_model`, or as `quantise_layers_`.
    """
    check_model(model, format)
    quantise_layers_(model, to_quantise(model), format)


@torch.no_grad()
def quantise_layers_(model: nn.Module, chosen: Mapping[str, nn.Linear], format: Format) -> None:
    """Replace these layers of the model by quantised ones.

    Raises:
        ValueError: a weight cannot be rounded; the message names its layer.
    """
    for name, module in list(chosen.items()):
        try:
            packed = format.quantise(module.weight)
        except ValueError as error:
            raise ValueError(f"layer {name} cannot be quantised: {error}") from None
        replace_(model, name, QuantisedLinear(format, packed, module.bias))


def replace_(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Put a layer in the place of another."""
    owner, _, leaf = name.rpartition(".")
    layer.train(model.training)
    setattr(model.get_submodule(owner), leaf, layer)


def _floats(model: nn.Module) -> dict[int, tuple[str, nn.Parameter]]:
    """Scales and zero points by identity, shared ones once, with their first name."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for name, layer in layers(model).items():
        for leaf in ("scales", "zeros"):
            parameter = layer._parameters.get(leaf)
            if parameter is not None:
                found.setdefault(id(parameter), (f"{name}.{leaf}".lstrip("."), parameter))
    return found


def floats_(model: nn.Module) -> None:
    """Hold trained scales and zero points in float32, and the others in float16, which holds them exactly before they
    are trained; all in float32 where they are `wide`.
    """
    wide = any(layer.wide for layer in layers(model).values())
    for _, parameter in _floats(model).values():
        parameter.data = parameter.data.to(torch.float32 if parameter.requires_grad or wide else HALF)


def widen_(model: nn.Module) -> None:
    """Hold all scales and zero points in float32, now and whatever is trained."""
    for layer in layers(model).values():
        layer.wide = True
    floats_(model)


def scales_of(model: nn.Module) -> list[nn.Parameter]:
    """Return the scales, shared ones once."""
    return [p for name, p in _floats(model).values() if name.rpartition(".")[2] == "scales"]


def scale_names(model: nn.Module) -> tuple[str, ...]:
    """Return the first names of the trained scales."""
    named = _floats(model).values()
    return tuple(name for name, p in named if p.requires_grad and name.rpartition(".")[2] == "scales")


@torch.no_grad()
def round_(model: nn.Module) -> None:
    """Round trained scales and zero points to float16, which files hold; their dtype stays."""
    for _, parameter in _floats(model).values():
        parameter.copy_(parameter.to(HALF))


@contextmanager
def as_exported(model: nn.Module) -> Iterator[None]:
    """The context in which the model reads scales and zero points as its file would hold them: what is measured in it
    is what the file is measured to have.
    """
    known = layers(model).values()
    for layer in known:
        layer.as_exported = True
    try:
        yield
    finally:
        for layer in known:
            layer.as_exported = False


def codes_of(model: nn.Module) -> dict[str, Tensor]:
    """Return what no parameter holds of quantised layers: codes, and smoothing factors where there are some, shared
    ones under each name.
    """
    found = {f"{name}.codes": layer.codes for name, layer in layers(model).items()}
    smoothing = {f"{name}.smoothing": getattr(layer, "smoothing", None) for name, layer in layers(model).items()}
    return found | {name: factors for name, factors in smoothing.items() if factors is not None}


def dense_dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype of a model's norms, to which `dense_` rounds."""
    own = {id(p) for _, p in _floats(model).values()}
    kinds = (p.dtype for p in model.parameters() if id(p) not in own and p.is_floating_point())
    return next(kinds, torch.float32)


@torch.no_grad()
def dense_(model: nn.Module, dtype: torch.dtype | None = None) -> None:
    """Replace quantised layers by dense ones with the same weights, tied ones tied, rounded to the dtype or to
    `dense_dtype`. Smoothing factors are folded into the weights; activations are no longer rounded.
    """
    dtype = dtype or dense_dtype(model)
    made: dict[int, nn.Parameter] = {}
    for name, layer in layers(model).items():
        key = id(layer.codes)
        if key not in made:
            weight = layer.dense if isinstance(layer, QuantisedLinear) else layer.weight
            made[key] = nn.Parameter(weight.to(dtype), requires_grad=False)
        rows, columns = layer.shape
        with torch.device("meta"):
            if isinstance(layer, QuantisedEmbedding):
                dense: nn.Module = nn.Embedding(rows, columns, padding_idx=layer.padding_idx)
            else:
                dense = nn.Linear(columns, rows, bias=False)
                dense.register_parameter("bias", layer._parameters["bias"])
        dense.register_parameter("weight", made[key])
        replace_(model, name, dense)


def planned_bytes(model: nn.Module, format: Format | None = None, wide: bool = False) -> int:
    """Return the bytes of the parameters and codes of a model, on the meta device as well, once it is quantised, if a
    format is given, and its scales are trained: codes, scales in float32, zero points in float16, or `wide` in float32.
    """
    chosen = {id(module.weight) for module in to_quantise(model).values()} if format else set()
    zeros = 4 if wide else 2
    floats = {id(p): 4 if name.endswith(".scales") else zeros for name, p in _floats(model).values()}
    total = float(sum(codes.nbytes for codes in {id(codes): codes for codes in codes_of(model).values()}.values()))
    for p in {id(p): p for p in model.parameters()}.values():
        each: float = floats.get(id(p), p.element_size())
        if format and id(p) in chosen:
            each = format.bits / 8 + (4 + zeros * format.asymmetric) / format.group
        total += p.numel() * each
    return round(total)


def held_bytes(model: nn.Module) -> dict[str, int]:
    """Return the bytes of the codes, scales and zero points of the quantised layers, those of the same layers in
    bfloat16, and those of all parameters and buffers.
    """
    chosen = {id(layer.codes): layer for layer in layers(model).values()}
    own = [t for layer in chosen.values() for t in (layer.codes, layer.scales, layer.zeros) if t is not None]
    every = {t.data_ptr(): t for t in (*model.parameters(), *model.buffers())}
    return {
        "quantised_bytes": sum(t.numel() * t.element_size() for t in own),
        "bfloat16_bytes": sum(2 * rows * columns for rows, columns in (layer.shape for layer in chosen.values())),
        "model_bytes": sum(t.numel() * t.element_size() for t in every.values()),
    }
