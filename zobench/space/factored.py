"""A matrix perturbed along directions of low rank, as what it is multiplied with or looked up by sees it."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import functional

from zobench.layout import on_device
from zobench.space.folded import product


class UnknownUseError(ValueError, AttributeError):
    """A matrix is used in a way that its factors do not serve; for hasattr an attribute that is not there."""


class Factored:
    """Stands for W + L R of a point in a `torch.vmap` over points: W (rows, columns) is the same at all of them, L
    (rows, rank) and R (rank, columns) are of points. W + L R never exists.

    Products with it, chosen rows and lookups are known; every other use is a ValueError. `places` gives the rows of L
    where it has some of those of W alone; the whole matrix is then no operand.
    """

    def __init__(
        self,
        name: str,
        weight: Tensor,
        left: Tensor,
        right: Tensor,
        places: Callable[[Tensor], Tensor] | None = None,
        require_whole: Callable[[], None] = lambda: None,
    ) -> None:
        self.name, self.weight, self.left, self.right = name, weight, left, right
        self.places, self.require_whole = places, require_whole

    ndim, requires_grad = 2, False
    shape = property(lambda self: self.weight.shape)
    dtype = property(lambda self: self.weight.dtype)
    device = property(lambda self: self.weight.device)

    def __len__(self) -> int:
        return len(self.weight)

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or one of its two numbers."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Return 2."""
        return 2

    def numel(self) -> int:
        """Return the number of entries."""
        return self.weight.numel()

    def t(self) -> "Factored":
        """Return the transposed matrix."""
        self.require_whole()
        return Factored(self.name, self.weight.t(), self.right.t(), self.left.t())

    def transpose(self, *dims: int) -> "Factored":
        """Return the transposed matrix, of the two dimensions."""
        if sorted(dim % 2 for dim in dims) != [0, 1]:
            self.refuse(f"transpose{dims}")
        return self.t()

    T = mT = property(t)

    def __getitem__(self, index: Any) -> "Factored":
        if isinstance(index, slice) and index == slice(None):
            return self
        chosen = index
        if isinstance(index, list) and all(type(row) is int for row in index):
            chosen = on_device(index, self.device, torch.int64)
        if not isinstance(chosen, Tensor) or chosen.ndim != 1 or chosen.dtype not in (torch.int64, torch.int32):
            self.refuse("an index that is no vector of row numbers")
        chosen = torch.where(chosen < 0, chosen + len(self), chosen).long()
        return Factored(self.name, self.weight[chosen], self.left[self._places(chosen)], self.right)

    def lookup(self, ids: Tensor) -> Tensor:
        """Return the rows of these numbers, (*ids.shape, columns)."""
        ids = ids.long()
        return functional.embedding(ids, self.weight) + (self.left[self._places(ids)] @ self.right)

    def linear(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x (W + L R)^T + bias."""
        self.require_whole()
        result: Tensor = product(x, self.weight, self.left, self.right, bias)
        return result

    def times(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return x (W + L R) + bias."""
        return self.t().linear(x, bias)

    __rmatmul__ = times

    def _places(self, rows: Tensor) -> Tensor:
        return rows if self.places is None else self.places(rows)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.refuse(name)

    def refuse(self, use: str) -> NoReturn:
        """Raise UnknownUseError: the matrix is used otherwise."""
        raise UnknownUseError(
            f"the parameter {self.name} is used by {use}, but the batched engine knows of a matrix only products "
            "with it (linear, matmul, addmm), chosen rows and embeddings: take the in-forward engine, or freeze the "
            "parameter"
        )

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        known = _KNOWN.get(func)
        result = NotImplemented if known is None else known(*args, **kwargs)
        if result is NotImplemented:
            own = next(x for x in (*args, *kwargs.values()) if isinstance(x, Factored))
            own.refuse(getattr(func, "__name__", str(func)))
        return result


def _refused(name: str) -> Callable[..., NoReturn]:
    return lambda matrix, *_: matrix.refuse(name)


for _name in ("add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "matmul", "pow", "neg", "abs"):
    setattr(Factored, f"__{_name}__", _refused(_name))  # Python looks operators up in the class alone


def _linear(input: Any, weight: Any, bias: Any = None) -> Any:
    return weight.linear(input, bias) if _alone(weight, input, bias) else NotImplemented


def _matmul(input: Any, other: Any) -> Any:
    return other.times(input) if _alone(other, input) else NotImplemented


def _addmm(input: Any, mat1: Any, mat2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    is_plain = beta == alpha == 1 and getattr(input, "ndim", 0) == 1
    return mat2.times(mat1, input) if is_plain and _alone(mat2, mat1, input) else NotImplemented


def _embedding(input: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None, *_: Any, **__: Any) -> Any:
    return weight.lookup(input) if max_norm is None and _alone(weight, input) else NotImplemented


def _alone(matrix: Any, *others: Any) -> bool:
    """Whether a Factored matrix is where one is known, and nowhere else."""
    return isinstance(matrix, Factored) and not any(isinstance(other, Factored) for other in others)


_KNOWN: dict[Any, Callable[..., Any]] = {
    functional.linear: _linear,
    functional.embedding: _embedding,
    torch.addmm: _addmm,
    **dict.fromkeys((torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__), _matmul),
}
