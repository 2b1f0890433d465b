"""The memory that a streamed engine holds of a model, by the shapes of its tensors alone."""

from torch import nn

from llm.cost.live import held, size_of
from zobench.space.streamed import KEPT, layers_of


def in_memory(model: nn.Module) -> dict[str, int]:
    """Return the most bytes that a streamed step holds of a model: blocks, what is in no block, and the largest tensor
    twice, perturbed to both points.

    Raises:
        ValueError: the model has no list of layers.
    """
    layers = layers_of(model)
    blocks = sorted((size_of(layer.parameters()) for layer in layers), reverse=True)
    largest = max(p.numel() * p.element_size() for p in model.parameters())
    return {
        f"{min(KEPT, len(blocks))} of {len(blocks)} blocks": sum(blocks[:KEPT]),
        "what is in no block": held(model) - sum(blocks),
        "two perturbed tensors": 2 * largest,
    }
