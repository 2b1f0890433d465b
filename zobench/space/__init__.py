"""Spaces own the parameters and are the only code that moves them."""

from zobench.space.flat import FlatSpace
from zobench.space.module import ModuleSpace
from zobench.space.space import Space

__all__ = ["FlatSpace", "ModuleSpace", "Space"]
