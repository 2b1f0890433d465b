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
def product(x: Tensor, weight: Tensor, left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x (W + L R)^T + bias as x W^T + (x R^T) L^T + bias, without W + L R. It is a custom operation, whose rule
    torch reaches sooner than that of an autograd.Function.

    Args:
        x: (..., columns), of points or not.
        weight: W (rows, columns), the same at all points.
        left: L (rows, rank), of points.
        right: R (rank, columns), of points.
        bias: (rows,), of points or not.
    """
    result = x @ weight.t() + x @ right.t() @ left.t()
    return result if bias is None else result + bias


def _product_of_points(
    info: Any, dims: Dims, x: Tensor, weight: Tensor, left: Tensor, right: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, int]:
    points, (outputs, inputs) = info.batch_size, weight.shape
    if dims[2] is None:  # a vmap of the loss's own, within a point
        return product(_leading(x, dims[0], points), weight, left, right, bias), 0
    x = x[None] if dims[0] is None else x.movedim(dims[0], 0)
    each = x.reshape(len(x), -1, inputs)
    inner = torch.matmul(right, each.mT).mT  # x R^T in the order in which BLAS is the faster
    dtype = inner.dtype  # of products: autocast may have chosen it
    # The product is added to its correction and not the other way round: that is one pass less over the output.
    second = left.mT.to(dtype)
    if bias is None:
        total = torch.bmm(inner, second)
    else:
        bias = (bias if dims[4] is None else bias.movedim(dims[4], 0)[:, None]).to(dtype)
        # addcmul makes one pass, of rank 1; baddbmm copies the bias first.
        total = torch.addcmul(bias, inner, second) if second.shape[1] == 1 else torch.baddbmm(bias, inner, second)
    if dims[0] is None:
        total += linear(each[0], weight).to(dtype)
    else:
        add_linear_(total.view(-1, outputs), each.flatten(0, 1).to(dtype), weight.to(dtype))
    return total.view(points, *x.shape[1:-1], outputs), 0


product.register_vmap(_product_of_points)


@torch.library.custom_op("zobench::attention", mutates_args=())
def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, is_causal: bool,
    scale: float | None, enable_gqa: bool,
) -> Tensor:  # fmt: skip
    """Return torch's scaled_dot_product_attention, of which one implementation has no rule for vmap."""
    return functional.scaled_dot_product_attention(
        query, key, value, mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
    )


def _attention_of_points(
    info: Any, dims: Dims, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *options: Any
) -> tuple[Tensor, int]:
    points = info.batch_size
    heads = [_leading(x, dim, points) for x, dim in zip((query, key, value), dims, strict=False)]
    most = heads[0].ndim
    if mask is not None and (dims[3] is not None or (mask.ndim == most - 1 and mask.shape[0] != 1)):
        mask = _leading(mask, dims[3], points)
        mask = mask.view(points, *[1] * (most - mask.ndim), *mask.shape[1:])
        mask = mask.expand(points, heads[0].shape[1], *mask.shape[2:]).flatten(0, 1)
    found: Tensor = attention(*[x.flatten(0, 1) for x in heads], mask, *options)
    return found.unflatten(0, (points, -1)), 0


attention.register_vmap(_attention_of_points)


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
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    if query.ndim < 3:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    return attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)


def _layer_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:  # fmt: skip
    if weight is None or bias is None:
        return functional.layer_norm(input, normalized_shape, weight, bias, eps)
    # The rule of vmap for scales of points makes two passes; this one is of one.
    return torch.addcmul(bias, functional.layer_norm(input, normalized_shape, eps=eps), weight)
