"""Gradient checkpointing: layers read again in the backward pass, instead of their activations being kept."""

from functools import partial

from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer


def recompute_layers(model: nn.Module) -> int:
    """Let the model's layers keep nothing but their inputs for the backward pass, and return how many there are.

    A step then costs a second forward pass through the layers, which is part of its backward pass and not counted.
    (`gradient_checkpointing_enable` of transformers does nothing in evaluation mode, in which models are trained here:
    training mode would turn dropout on.)

    Raises:
        ValueError: the architecture has no layers that transformers would checkpoint.
    """
    found = blocks(model)
    if not found:
        raise ValueError(f"{type(model).__name__} has no layers to recompute: leave --gradient-checkpointing out")
    for layer in found:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    return len(found)


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the transformer layers of a model, from the input to the output."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
