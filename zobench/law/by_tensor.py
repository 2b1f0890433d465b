"""Laws that draw tensor by tensor, and those of which a part is held for several steps."""

from dataclasses import dataclass, field, replace
from typing import Self

from zobench.law.law import Law


class ByTensor(Law):
    """A law by tensor with E[credit u^T] = I."""

    @property
    def second_moment(self) -> float | None:
        """1."""
        return 1.0

    @property
    def by_tensor(self) -> bool:
        """True."""
        return True


@dataclass(frozen=True)
class PartlyHeld(ByTensor):
    """A law by tensor, a part of whose directions is drawn from `refresh` alone, so that all directions under that key
    share it; where it is None, the part is drawn anew with each direction. `Refreshed` names the key of a step for as
    many steps as it holds the part.
    """

    refresh: int | None = field(default=None, repr=False, kw_only=True)

    def refreshed(self, key: int) -> Self:
        """Return the law whose held part is that of `key`."""
        return replace(self, refresh=key)
