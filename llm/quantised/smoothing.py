"""Smoothing factors of fake-quantised layers: found from inputs, and kept as text in the journal of a run."""

import zlib
from base64 import b64decode, b64encode

import numpy as np
import torch
from torch import Tensor, nn

from llm.quantised.fake import FakeQuantisedLinear, fake_layers

LEAST = 1e-5
"""The smallest extreme of a channel, and the smallest factor (SmoothQuant's code)."""


def factors(layer: FakeQuantisedLinear, largest: Tensor, alpha: float) -> Tensor:
    """Return t_j = max |X_j|^alpha / max_i |W_ij|^(1 - alpha), (in,), for the largest |X_j| of each input channel.

    Source: SmoothQuant (Xiao et al. 2023, https://arxiv.org/abs/2211.10438). Layers that read the same inputs have
    factors of their own here, as each divides its inputs itself.
    """
    weights = layer.weight.detach().float().abs().amax(0).clamp_(min=LEAST)
    inputs = largest.float().clamp(min=LEAST)
    return (inputs.pow(alpha) / weights.pow(1 - alpha)).clamp_(min=LEAST)


@torch.no_grad()
def smooth_(model: nn.Module, alpha: float) -> None:
    """Set the smoothing factors of watched layers, by the inputs they have seen."""
    for layer in fake_layers(model).values():
        assert layer.largest is not None
        layer.log_smoothing.copy_(factors(layer, layer.largest, alpha).log())


def as_text(model: nn.Module) -> str:
    """Return the logarithms of the smoothing factors: float32, compressed, in base64."""
    found = [layer.log_smoothing.detach().cpu() for layer in fake_layers(model).values()]
    return b64encode(zlib.compress(torch.cat(found).numpy().astype("<f4").tobytes(), 9)).decode()


@torch.no_grad()
def from_text_(model: nn.Module, text: str) -> None:
    """Set the smoothing factors to those of a text.

    Raises:
        ValueError: it is none, or of another model.
    """
    try:
        octets = zlib.decompress(b64decode(text, validate=True))
        numbers = torch.from_numpy(np.frombuffer(octets, "<f4").astype(np.float32))
    except (ValueError, zlib.error) as error:
        raise ValueError(f"the smoothing factors in the header cannot be read: {error}") from None
    layers = list(fake_layers(model).values())
    sizes = [layer.in_features for layer in layers]
    if sum(sizes) != len(numbers):
        raise ValueError(f"the header has {len(numbers)} smoothing factors, and the model {sum(sizes)} input channels")
    for layer, part in zip(layers, numbers.split(sizes), strict=True):
        layer.log_smoothing.copy_(part)
