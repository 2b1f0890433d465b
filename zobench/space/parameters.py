"""ParameterSpace: parameters without their module, as an optimizer has them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from zobench.combination import Combination
from zobench.groups import Groups
from zobench.space.module import ModuleSpace
from zobench.space.motion import Motion, motion
from zobench.space.restoring import Restoring
from zobench.space.support import Rows

Named = tuple[str, nn.Parameter]


class ParameterSpace(ModuleSpace):
    """Groups of named parameters, moved in place (x <- x + a u); a name keys its directions, as in a ModuleSpace.

    Perturbs and steps as ModuleSpace to the bit, except that 16-bit parameters are perturbed from a copy of them and
    stepped from it, as in an InForwardSpace: the way back would move them further than the step. The copy is as large
    as these parameters; there is none of the others, except of all if they fit 16 MiB, which settle_, as after a loss
    that is not finite, brings back exactly.

    Nobody knows whether the losses have dropout in them: f is called twice more before the first plan. While the
    directions of a plan fit 16 MiB they are drawn once a step, and small tensors move together.

    Raises:
        UnknownNameError: rounding is neither "nearest" nor "stochastic".
        ValueError: as ModuleSpace; or two parameters of one name; stochastic rounding of float16.
    """

    def __init__(self, groups: Sequence[Sequence[Named]], rounding: str = "nearest") -> None:
        names: set[str] = set()
        for name, _ in (pair for group in groups for pair in group):
            _require_new(name, names)
            names.add(name)
        self._restoring = Restoring(rounding)
        super().__init__(_Parameters([pair for group in groups for pair in group]), self._restoring)
        self.narrow = self._restoring.narrow

    def restrict(self, rows: Mapping[str, Rows]) -> None:
        """Refuse: which rows a loss reads is known of a module.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"rows of {sorted(rows)} cannot be chosen here: restrict a ModuleSpace or an InForwardSpace")

    def narrow_motion(self, gradient: Combination, scale: float, shrink: float, groups: Groups) -> Motion:
        """Return what step_ with these arguments will do to the 16-bit parameters; no other is touched, and these only
        put back. Cost: one sweep over them, no loss.
        """
        self._restoring.put_back_narrow()
        change = self.stored.change(self.step_of(gradient, scale, shrink, groups))
        return motion(self.stored.support, dict.fromkeys(self.narrow, change))


class _Parameters(nn.Module):
    """Named parameters as a module that counts as being in training mode."""

    def __init__(self, named: Sequence[Named]) -> None:
        super().__init__()
        self.named = list(named)

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[Named]:
        return iter(self.named)


def _require_new(name: str, taken: set[str]) -> None:
    if name in taken:
        raise ValueError(f"two parameters are named {name!r}: names key the directions, so give each its own")
