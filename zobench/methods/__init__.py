"""Named methods of the literature, one readable row each: formula, evaluations a step, source, and the composition
law x stencil x coefficient map x update rule. The files are the axes in which the rows differ.
"""

from zobench.methods.making import make, parse, rule, rule_name, table
from zobench.methods.row import Axes, Method

__all__ = ["Axes", "Method", "make", "parse", "rule", "rule_name", "table"]
