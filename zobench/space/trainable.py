"""The trainable parameters of a module, as a space moves them."""

import torch
from torch import Tensor, nn

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def trainable(module: nn.Module) -> dict[str, nn.Parameter]:
    """Return the trainable parameters under their first names; those that share memory appear once.

    Raises:
        ValueError: there is none, or one cannot be moved: it is complex or of 8 bits, on the meta device, has gaps or
            repeated entries in memory, or overlaps with another.
    """
    parameters: dict[str, nn.Parameter] = {}
    ranges: dict[tuple[int, int, int], str] = {}
    for name, p in module.named_parameters():
        if not p.requires_grad or p.numel() == 0:
            continue
        _require_stored(name, p)
        start = p.storage_offset()
        memory = (p.untyped_storage().data_ptr(), int(start), int(start) + p.numel())
        if memory not in ranges:
            _require_disjoint(name, memory, ranges)
            ranges[memory] = name
            parameters[name] = p
    if not parameters:
        raise ValueError(
            "the module has no trainable parameter: set requires_grad=True on the parameters to be trained"
        )
    return parameters


def _require_stored(name: str, p: Tensor) -> None:
    if p.is_meta:
        raise ValueError(f"parameter {name!r} is on the meta device, without values: load the weights first")
    if p.dtype not in DTYPES:
        raise ValueError(f"parameter {name!r} is {p.dtype}: give real floating-point parameters of 16 bits or more")
    length = 1
    for stride, size in sorted((stride, size) for stride, size in zip(p.stride(), p.shape, strict=True) if size > 1):
        if stride != length:
            raise ValueError(
                f"parameter {name!r} has gaps or repeated entries in memory (shape {tuple(p.shape)}, strides "
                f"{p.stride()}): replace it by a contiguous copy first"
            )
        length *= size


def require_alike(name: str, first: Tensor, other: Tensor) -> None:
    """Raise ValueError if a parameter shares the memory of `name` in another shape or order."""
    if first.shape != other.shape or first.stride() != other.stride():
        raise ValueError(
            f"a parameter shares the memory of {name!r} as {tuple(other.shape)} with strides {other.stride()}: tie "
            "equal shapes, and transpose where the weight is used"
        )


def _require_disjoint(name: str, memory: tuple[int, int, int], ranges: dict[tuple[int, int, int], str]) -> None:
    storage, start, stop = memory
    for (other, first, last), owner in ranges.items():
        if other == storage and start < last and first < stop:
            raise ValueError(f"parameters {owner!r} and {name!r} overlap in memory but are not equal: copy one")
