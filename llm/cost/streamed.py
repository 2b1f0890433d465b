"""The memory that a streamed engine holds of a model, by the shapes of its tensors alone."""

from torch import nn

from llm.quantised import Format, is_quantised
from llm.quantised.model import planned_bytes, scales_of, to_quantise
from zobench.space.slots import KEPT
from zobench.space.streamed import layers_of


def in_memory(model: nn.Module, format: Format | None = None, slots: bool = False) -> dict[str, int]:
    """Return the most bytes that a streamed step holds of a model where it computes; a format may be about to quantise
    the model: blocks, or with `slots` so many times the largest, what is in no block, and the largest tensor that is
    perturbed, twice, at both points.

    Raises:
        ValueError: the model has no list of layers.
    """
    blocks = sorted((planned_bytes(layer, format, wide=True) for layer in layers_of(model)), reverse=True)
    return {
        f"{min(KEPT, len(blocks))} of {len(blocks)} blocks": len(blocks[:KEPT]) * blocks[0]
        if slots
        else sum(blocks[:KEPT]),
        "what is in no block": planned_bytes(model, format, wide=True) - sum(blocks),
        "two perturbed tensors": 2 * _largest(model, format),
    }


def _largest(model: nn.Module, format: Format | None) -> int:
    """The bytes of the largest tensor that is trained by default: of a quantised model its scales."""
    if format:
        return max(4 * module.weight.numel() // format.group for module in to_quantise(model).values())
    if is_quantised(model):
        return max(4 * p.numel() for p in scales_of(model))
    return max(p.numel() * p.element_size() for p in model.parameters())
