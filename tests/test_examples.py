"""The examples in the docstrings of zobench are true."""

import doctest
import importlib
import pkgutil

import zobench

NEED_MORE = ("zobench.integrations", "zobench.random.kernels", "zobench.testing.strategies")  # extras, or Triton
LEAST_EXAMPLES = 4  # fewer would mean that modules are not found


def test_examples_of_docstrings_are_true() -> None:
    names = [m.name for m in pkgutil.walk_packages(zobench.__path__, "zobench.") if not m.name.startswith(NEED_MORE)]
    results = [doctest.testmod(importlib.import_module(name)) for name in names]
    assert sum(result.failed for result in results) == 0
    assert sum(result.attempted for result in results) >= LEAST_EXAMPLES
