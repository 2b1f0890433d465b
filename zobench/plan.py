"""Plan: the question an estimator asks."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from zobench.law import Law


@dataclass(frozen=True, eq=False)
class Plan:
    """Points x + offsets[..., i, k] * u_i on n seeded lines, and the weight of each loss in the coefficient of its
    line: c_i = sum_k weights[..., i, k] f(x + offsets[..., i, k] * u_i).

    `offsets` and `weights` are float64 (*batch, n, m); weights carry 1 / (n epsilon). An offset of exactly 0 is the
    base point, which all lines share and which is evaluated once.

    Raises:
        ValueError: offsets and weights differ in shape or have no (n, m).
    """

    law: Law
    key: int
    offsets: Tensor
    weights: Tensor

    def __post_init__(self) -> None:
        if self.offsets.shape != self.weights.shape or self.offsets.ndim < 2:
            raise ValueError(
                f"a plan wants offsets and weights of one shape (*batch, n, m), got {tuple(self.offsets.shape)} "
                f"and {tuple(self.weights.shape)}"
            )

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
        flags = [flag for row in self.base for flag in row]
        return flags.count(False) + any(flags)
