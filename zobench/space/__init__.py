"""Spaces own the parameters and are the only code that moves them."""

from zobench.space.batched import Batched
from zobench.space.closure import require_reproducible
from zobench.space.engine import Engine
from zobench.space.flat import FlatSpace
from zobench.space.in_forward import InForward
from zobench.space.in_place import InPlace
from zobench.space.module import InForwardSpace, ModuleSpace
from zobench.space.motion import Motion
from zobench.space.paired import Paired
from zobench.space.parameters import ParameterSpace
from zobench.space.restoring import Restoring
from zobench.space.shared import Shared
from zobench.space.space import Space, require_resolved
from zobench.space.stored import Point, Step, Stored

__all__ = [
    "Batched", "Engine", "FlatSpace", "InForward", "InForwardSpace", "InPlace", "ModuleSpace", "Motion", "Paired",
    "ParameterSpace", "Point", "Restoring", "Shared", "Space", "Step", "Stored",
    "require_reproducible", "require_resolved",
]  # fmt: skip
