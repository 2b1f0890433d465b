"""Fake-quantised layers: they hold weights in full precision and compute with rounded ones.

Source: ZeroQAT (2025, https://arxiv.org/abs/2509.00031); smoothing factors are SmoothQuant's
(https://arxiv.org/abs/2211.10438), clipping by channel is OmniQuant's (https://arxiv.org/abs/2308.13137).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from llm.quantised.activations import incoming
from llm.quantised.layers import QuantisedLinear, tiled_linear
from llm.quantised.model import check_layers, layers, replace_, round_, to_quantise
from llm.quantised.schemes import Scheme
from zobench.products import linear

OWN = ("log_smoothing", "log_clipping")
"""The parameters of a fake-quantised layer beside weight and bias."""


class FakeQuantisedLinear(nn.Linear):
    """y = r(x / t) Q(W t, c)^T + b: Q rounds each row of W t to the scheme's format between c min and c max, r rounds
    each token to the scheme's bits.

    Parameters: the latent matrix `weight` W (out, in), `bias` b, `log_smoothing` = ln t (in,) and `log_clipping` = ln c
    (out,), both float32 and 0 at first; logarithms, so that no step makes a factor negative. The forward is that of the
    layer that `rounded` returns, to the bit. Cost: that of a Linear, and once a call the rounding of W.
    """

    log_smoothing: nn.Parameter
    log_clipping: nn.Parameter

    def __init__(self, scheme: Scheme, dense: nn.Linear) -> None:
        nn.Module.__init__(self)
        self.scheme, self.format = scheme, scheme.format(dense.in_features)
        self.out_features, self.in_features = dense.out_features, dense.in_features
        self.weight = dense.weight
        self.register_parameter("bias", dense.bias)
        for name, size in zip(OWN, (self.in_features, self.out_features), strict=True):
            zeros = torch.zeros(size, dtype=torch.float32, device=dense.weight.device)
            self.register_parameter(name, nn.Parameter(zeros, requires_grad=False))
        self.largest: Tensor | None = None
        """While the layer is watched: the largest |x| of each input channel so far."""

    def forward(self, x: Tensor) -> Tensor:
        """Return y in the dtype of x; while the layer is watched x W^T + b."""
        if self.largest is not None:
            self.largest = torch.maximum(self.largest, x.detach().abs().flatten(0, -2).amax(0).float())
            return linear(x, self.weight, self.bias)
        # Each parameter is read once: an engine that perturbs parameters where they are read draws at each read.
        weight, smoothing, clipping = self.weight, self.log_smoothing.exp(), self.log_clipping.exp()

        def rows(chosen: slice) -> Tensor:
            return self.format.fake_quantise(weight[chosen].float() * smoothing, clipping[chosen])

        shape = (self.out_features, self.in_features)
        return tiled_linear(incoming(x, smoothing, self.scheme.activations), rows, shape, self.bias)

    @torch.no_grad()
    def rounded(self) -> QuantisedLinear:
        """Return the layer of codes and scales that computes what this one does.

        Raises:
            ValueError: a scale is beyond float16.
        """
        smoothing = self.log_smoothing.exp()
        packed = self.format.quantise(self.weight.float() * smoothing, self.log_clipping.exp())
        kept = None if bool((smoothing == 1).all()) else smoothing
        return QuantisedLinear(self.format, packed, self.bias, kept, self.scheme.activations)

    def extra_repr(self) -> str:
        """Return the shape and the scheme."""
        return f"{self.in_features}, {self.out_features}, {self.scheme.name}"


def is_fake_quantised(model: nn.Module) -> bool:
    """Return whether the model has a fake-quantised layer."""
    return bool(fake_layers(model))


def fake_layers(model: nn.Module) -> dict[str, FakeQuantisedLinear]:
    """Return the fake-quantised layers by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, FakeQuantisedLinear)}


def check_fake(model: nn.Module) -> None:
    """Refuse a model whose layers cannot be rounded by channels; it may be on the meta device.

    Raises:
        ValueError: as `check_layers`, or a row is not a multiple of 4 weights.
    """
    check_layers(model, "--fake-quantize")
    for name, module in to_quantise(model).items():
        if module.in_features % 4:
            raise ValueError(
                f"layer {name} has rows of {module.in_features} weights, and codes are packed by four: leave "
                "--fake-quantize out, or give another model"
            )


def fake_quantise_(model: nn.Module, scheme: Scheme) -> None:
    """Replace every Linear but the head by a fake-quantised one with the same parameters.

    Raises:
        ValueError: as `check_fake`.
    """
    check_fake(model)
    for name, module in to_quantise(model).items():
        replace_(model, name, FakeQuantisedLinear(scheme, module))


@torch.no_grad()
def as_written_(model: nn.Module) -> None:
    """Make a model what its file holds of it: trained scales and zero points rounded to float16, and each
    fake-quantised layer replaced by one of codes; then all that the file holds counts as trained.

    Raises:
        ValueError: a layer's scales are beyond float16; the message names it.
    """
    round_(model)
    found = fake_layers(model)
    for name, layer in found.items():
        try:
            replace_(model, name, layer.rounded())
        except ValueError as error:
            raise ValueError(f"layer {name} cannot be quantised: {error}") from None
    if found:
        all_trained_(model)


def all_trained_(model: nn.Module) -> None:
    """Let everything that a file of a quantised model holds count as trained."""
    model.requires_grad_(True)
    for layer in layers(model).values():
        layer.searched = True


@contextmanager
def watched(model: nn.Module) -> Iterator[None]:
    """The context in which fake-quantised layers compute in full precision and note the largest |x| of each channel;
    afterwards `largest` is None again.
    """
    found = fake_layers(model).values()
    for layer in found:
        layer.largest = torch.zeros_like(layer.log_smoothing)
    try:
        yield
    finally:
        for layer in found:
            layer.largest = None
