"""Products in bfloat16 and float16 on processors without instructions for them."""

import torch
from torch import Tensor
from torch.nn import functional

NARROW = (torch.bfloat16, torch.float16)


def in_float32(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether products of this dtype are computed in float32: 16 bits on an x86 CPU without AVX-512, where torch's own
    take seven times as long.
    """
    return device.type == "cpu" and dtype in NARROW and torch.backends.cpu.get_cpu_capability() == "AVX2"


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x W^T + b in the dtype of x, (..., rows). Where `in_float32` says so, it is computed in float32 and rounded
    once.

    Cost: a product, and where it is computed in float32 a copy of W in float32.
    """
    if not (isinstance(x, Tensor) and isinstance(weight, Tensor) and in_float32(x.dtype, x.device)):
        return functional.linear(x, weight, bias)
    return functional.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


class Linear(torch.nn.Linear):
    """A Linear whose product is `linear`'s."""

    def forward(self, input: Tensor) -> Tensor:
        """Return x W^T + b."""
        return linear(input, self.weight, self.bias)


def widen_(model: torch.nn.Module) -> None:
    """Make every torch.nn.Linear of the model a `Linear` where its products are computed in float32."""
    for module in model.modules():
        if type(module) is torch.nn.Linear and in_float32(module.weight.dtype, module.weight.device):
            module.__class__ = Linear
