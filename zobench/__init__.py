"""zobench: a theory-and-benchmark toolkit for zeroth-order gradient estimation.

An estimator asks for losses on seeded lines and is told them; a space owns the parameters; a rule consumes the
estimates.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from zobench.version import VERSION

if TYPE_CHECKING:
    from zobench.public import *  # noqa: F403

__version__ = VERSION


def __getattr__(name: str) -> Any:
    """Import all public names when the first is used (PEP 562): a command line is parsed without torch."""
    if not name.startswith("_") or name == "__all__":
        public = importlib.import_module("zobench.public")
        globals().update({each: getattr(public, each) for each in ("__all__", *public.__all__)})
        if name in globals():
            return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *importlib.import_module("zobench.public").__all__})


class _Package(ModuleType):
    """The package, whose `query` is the function: importing the module zobench.query would set it to that module."""

    @property
    def query(self) -> Any:
        return importlib.import_module("zobench.query").query

    @query.setter
    def query(self, module: ModuleType) -> None:
        pass


sys.modules[__name__].__class__ = _Package
