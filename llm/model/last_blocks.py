"""The tensors at the end of a model, to which gradients flow through the last blocks alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from llm.model.language_model import LanguageModel
from llm.model.recompute import blocks
from llm.model.trainable import Tied, tensors


def last_blocks(language_model: LanguageModel, count: int) -> list[Tied]:
    """Return the trainable tensors of the last `count` transformer layers and of the modules that are called after
    them (the final norm, a head of its own). A head that is tied to the embeddings is not among them: its gradient
    would flow through the whole model.

    Cost: one forward pass of one token, which tells the order of the modules.

    Raises:
        ValueError: the model has not as many layers, or has none that is known.
    """
    model = language_model.model
    layers = blocks(model)
    if not 1 <= count <= len(layers):
        raise ValueError(
            f"blocks is {count}, but {language_model.name} has {len(layers)} layers: give 1 or more of them"
        )
    order = _called(language_model)
    first = order.index(layers[-count])
    inside = {id(module) for layer in layers[-count:] for module in layer.modules()}
    # Modules within the last layers that this one token did not call (an expert, say) belong to the last layers too.
    last = [*order[first:], *(module for module in model.modules() if id(module) in inside)]
    before = _memory(module for module in order[:first] if id(module) not in inside)
    after = _memory(last) - before
    return [each for each in tensors(model) if each.parameter.data_ptr() in after]


def _called(language_model: LanguageModel) -> list[nn.Module]:
    """The modules of a model in the order of their first call."""
    order: dict[nn.Module, None] = {}
    model = language_model.model
    handles = [module.register_forward_pre_hook(lambda each, _: order.setdefault(each)) for module in model.modules()]
    try:
        with torch.no_grad():
            model(input_ids=torch.zeros((1, 1), dtype=torch.int64, device=language_model.device))
    finally:
        for handle in handles:
            handle.remove()
    return list(order)


def _memory(modules: Iterator[nn.Module] | list[nn.Module]) -> set[int]:
    """Where the parameters of these modules lie, without those of their children."""
    return {p.data_ptr() for module in modules for p in module.parameters(recurse=False)}


@contextmanager
def frozen(each: list[Tied]) -> Iterator[None]:
    """The context in which these tensors, under all their names, are not trainable."""
    held = [tied.parameter for tied in each if tied.parameter.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad_(True)
