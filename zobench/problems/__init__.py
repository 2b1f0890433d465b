"""Small problems with exact gradients whose repr a person reads: what checks of estimators are made on.

`polynomial` has coupled terms, `RidgeSum` functions of few lines in space (a network in its inputs is one), `Network`
is a network in its weights, and `Transformed` scales, conditions and rotates another problem.
"""

from zobench.problems.network import Network
from zobench.problems.polynomial import Polynomial, polynomial
from zobench.problems.ridge_sum import SHAPES, RidgeSum
from zobench.problems.transformed import Transformed

__all__ = ["SHAPES", "Network", "Polynomial", "RidgeSum", "Transformed", "polynomial"]
