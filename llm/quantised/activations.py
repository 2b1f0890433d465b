"""What a quantised layer does to its inputs: smoothing factors divide them, and each token is rounded to a grid."""

import torch
from torch import Tensor


def per_token(x: Tensor, bits: int) -> Tensor:
    """Return s round((x - m) / s) + m for each token x of (..., in), m = min x and s = (max x - min x) / (2^bits - 1):
    the 2^bits levels between its extremes, found anew at each call. A token of equal entries stays as it is.

    Source: the activations of ZeroQAT (2025, https://arxiv.org/abs/2509.00031), asymmetric and per token.
    """
    low, high = x.amin(-1, keepdim=True), x.amax(-1, keepdim=True)
    scale = (high - low) / (2**bits - 1)
    codes = ((x - low) / torch.where(scale == 0, 1.0, scale)).round_().clamp_(0, 2**bits - 1)
    return codes.mul_(scale).add_(low)


def incoming(x: Tensor, smoothing: Tensor | None, bits: int | None) -> Tensor:
    """Return what a layer multiplies by its rounded weights: x / t, rounded to so many bits a token, in the dtype of x;
    None leaves either out. Between, numbers are float32 or wider.
    """
    if smoothing is None and bits is None:
        return x
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    if smoothing is not None:
        wide = wide / smoothing
    return (wide if bits is None else per_token(wide, bits)).to(x.dtype)
