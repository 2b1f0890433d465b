"""Operations of `torch.vmap` over points that fold the points into the rows of one product, which reads a weight once.

A tensor "of points" is batched by vmap: the code sees one point, the rule all of them as (points, ...).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from zobench.products import add_linear_, linear

Dims = Sequence[int | None]


@torch.library.custom_op("zobench::product", mutates_args=())
def product(x: Tensor, weight: Tensor, first: Tensor, second: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x (W + F S) + bias as x W + (x F) S + bias, without W + F S. A custom operation, whose rule torch reaches
    in half the time that it takes to that of an autograd.Function.

    Args:
        x: (..., inputs), of points or not.
        weight: W (inputs, outputs), the same at all points.
        first: F (inputs, rank), of points.
        second: S (rank, outputs), of points.
        bias: (outputs,), of points or not.
    """
    result = x @ weight + x @ first @ second
    return result if bias is None else result + bias


def _product_of_points(
    info: Any, dims: Dims, x: Tensor, weight: Tensor, first: Tensor, second: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, int]:
    points = info.batch_size
    if dims[2] is None:  # a vmap of the loss's own, within a point
        return product(_leading(x, dims[0], points), weight, first, second, bias), 0
    x = x[None] if dims[0] is None else x.movedim(dims[0], 0)
    rows = x.reshape(len(x), -1, x.shape[-1])
    inner = torch.matmul(first.mT, rows.mT).mT  # x F in the order in which BLAS is the faster
    dtype = inner.dtype  # of products: autocast may have chosen it
    second = second.to(dtype)
    if bias is None:
        total = torch.bmm(inner, second)
    else:
        bias = (bias if dims[4] is None else bias.movedim(dims[4], 0)[:, None]).to(dtype)
        # Of rank 1 in one pass over the output; baddbmm makes two.
        total = torch.addcmul(bias, inner, second) if second.shape[1] == 1 else torch.baddbmm(bias, inner, second)
    if dims[0] is None:
        total += linear(rows[0], weight.t()).to(dtype)
    else:
        add_linear_(total.view(-1, weight.shape[1]), rows.flatten(0, 1).to(dtype), weight.t().to(dtype))
    return total.view(points, *x.shape[1:-1], weight.shape[1]), 0


product.register_vmap(_product_of_points)


class _Attention(torch.autograd.Function):
    """torch's attention, of which one implementation has no rule for vmap."""

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: dict[str, Any]) -> Tensor:
        return functional.scaled_dot_product_attention(query, key, value, mask, **options)

    @staticmethod
    def setup_context(*_: Any) -> None:
        """Nothing is kept: losses have no backward pass."""

    @staticmethod
    def vmap(
        info: Any, dims: Dims, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: dict[str, Any]
    ) -> tuple[Tensor, int]:
        points = info.batch_size
        heads = [_leading(x, dim, points) for x, dim in zip((query, key, value), dims, strict=False)]
        most = heads[0].ndim
        if mask is not None and (dims[3] is not None or (mask.ndim == most - 1 and mask.shape[0] != 1)):
            mask = _leading(mask, dims[3], points)
            mask = mask.view(points, *[1] * (most - mask.ndim), *mask.shape[1:])
            mask = mask.expand(points, heads[0].shape[1], *mask.shape[2:]).flatten(0, 1)
        folded = [x.flatten(0, 1) for x in heads]
        found: Tensor = _Attention.apply(*folded, mask, options)  # type: ignore[no-untyped-call]
        return found.unflatten(0, (points, -1)), 0


def _leading(x: Tensor, dim: int | None, points: int) -> Tensor:
    """A tensor of points as (points, ...)."""
    return x.expand(points, *x.shape) if dim is None else x.movedim(dim, 0)


class Folding(TorchFunctionMode):
    """The context in which attention folds points into its batch, and layer norms take scales and shifts of points in
    one pass over the normalised rows.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func is functional.layer_norm:
            return _layer_norm(*args, **kwargs)
        return func(*args, **kwargs)


def _attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, **options: Any,
) -> Any:  # fmt: skip
    options |= {"dropout_p": dropout_p, "is_causal": is_causal}
    if query.ndim < 3:
        return functional.scaled_dot_product_attention(query, key, value, attn_mask, **options)
    return _Attention.apply(query, key, value, attn_mask, options)  # type: ignore[no-untyped-call]


def _layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:  # fmt: skip
    if weight is None or bias is None:
        return functional.layer_norm(input, normalized_shape, weight, bias, eps)
    # The rule of vmap for scales of points makes two passes; this one is of one.
    return torch.addcmul(bias, functional.layer_norm(input, normalized_shape, eps=eps), weight)
