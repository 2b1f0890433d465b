"""Products in bfloat16 and float16 on processors without instructions for them."""

import torch
from torch import Tensor
from torch.nn import functional

NARROW = (torch.bfloat16, torch.float16)


def without_instructions(device: torch.device) -> bool:
    """Whether it is an x86 CPU without AVX-512, whose products of 16 bits take seven times as long as in float32."""
    return device.type == "cpu" and torch.backends.cpu.get_cpu_capability() == "AVX2"


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b in the dtype of x, (..., rows): 16 bits `without_instructions` are widened to float32, and the
    result is rounded once.

    Cost: a product, and where it is computed in float32 a copy of W in float32.
    """
    if not (isinstance(weight, Tensor) and x.dtype in NARROW and without_instructions(x.device)):
        return functional.linear(x, weight, bias)
    return functional.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


def add_linear_(total: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Add x W^T, as `linear` computes it, to total (n, rows) in place; x (n, columns). All have one dtype."""
    if x.dtype in NARROW and without_instructions(x.device):
        return total.add_(linear(x, weight))
    return total.addmm_(x, weight.t())


class WideLinear(torch.nn.Linear):
    """A Linear whose product is `linear`'s."""

    def forward(self, input: Tensor) -> Tensor:
        """Return x W^T + b."""
        return linear(input, self.weight, self.bias)


def widen_products_(model: torch.nn.Module) -> None:
    """Make every torch.nn.Linear on a device `without_instructions` a `WideLinear`, whatever its dtype: weights held in
    float32 may be read in 16 bits.
    """
    for module in model.modules():
        if type(module) is torch.nn.Linear and without_instructions(module.weight.device):
            module.__class__ = WideLinear
