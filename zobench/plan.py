"""Plan: the question an estimator asks."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from zobench.law import Law
from zobench.naming import require_known
from zobench.numbers import count, store

LOSSES, SLOPE = "losses", "slope"
PASSES_OF_A_SLOPE = 3


@dataclass(frozen=True, eq=False)
class Plan:
    """Points x + offsets[..., i, k] * u_i on n seeded lines, and the weight of each loss in the coefficient of its
    line: c_i = sum_k weights[..., i, k] f(x + offsets[..., i, k] * u_i).

    `offsets` and `weights` are float64 (*batch, n, m); weights carry 1 / (n epsilon). An offset of exactly 0 is the
    base point, which all lines share and which is evaluated once.

    With asks="slope" a line is asked at the base point alone, for the loss and its derivative along u: m is 2, the
    offsets are 0, and one pass of forward-mode differentiation a line gives both answers. It counts as 3 evaluations:
    y = W x brings y' = W' x + W x' with it, three products in place of one.

    Raises:
        UnknownNameError: it asks for neither losses nor the slope.
        ValueError: offsets and weights differ in shape or have no (n, m), or the slope is asked for elsewhere.
    """

    law: Law
    key: int
    offsets: Tensor
    weights: Tensor
    asks: str = LOSSES

    def __post_init__(self) -> None:
        store(self, key=count("key", self.key, least=None))
        require_known(self.asks, (LOSSES, SLOPE), "question of a plan")
        if self.offsets.shape != self.weights.shape or self.offsets.ndim < 2:
            raise ValueError(
                f"a plan wants offsets and weights of one shape (*batch, n, m), got {tuple(self.offsets.shape)} "
                f"and {tuple(self.weights.shape)}"
            )
        if self.asks == SLOPE and (self.offsets.shape[-1] != 2 or bool(self.offsets.any())):
            raise ValueError("a plan that asks for the slope wants two nodes a line, both at offset 0")

    @property
    def batch(self) -> tuple[int, ...]:
        """The leading shape: empty for a model, large for Monte Carlo."""
        return tuple(self.offsets.shape[:-2])

    @cached_property
    def base(self) -> tuple[tuple[bool, ...], ...]:
        """Which of the (n, m) nodes are the base point, in the whole batch."""
        is_zero = (self.offsets == 0).reshape(-1, *self.offsets.shape[-2:]).all(0)
        return tuple(tuple(row) for row in is_zero.tolist())

    @property
    def queries(self) -> int:
        """Loss evaluations that one element of the batch costs."""
        if self.asks == SLOPE:
            return PASSES_OF_A_SLOPE * self.offsets.shape[-2]
        flags = [flag for row in self.base for flag in row]
        return flags.count(False) + any(flags)
