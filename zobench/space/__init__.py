"""Spaces own the parameters and are the only code that moves them."""

from zobench.space.closure import require_reproducible
from zobench.space.flat import FlatSpace
from zobench.space.in_forward import InForwardSpace
from zobench.space.module import ModuleSpace
from zobench.space.motion import Motion
from zobench.space.parameters import ParameterSpace
from zobench.space.space import Space, require_resolved

__all__ = [
    "FlatSpace",
    "InForwardSpace",
    "ModuleSpace",
    "Motion",
    "ParameterSpace",
    "Space",
    "require_reproducible",
    "require_resolved",
]
