"""Laws of directions: what u is in g = sum_i c_i u_i.

Every law of the class Isotropic has mean zero, u ~ -u and E[u u^T] = I, so that c u with c = u . grad f is an unbiased
estimate of grad f. A law never holds a direction: it draws one anew, block by block in any order, from (key, direction,
parameter, entry).
"""

from zobench.law.coordinate import Coordinate
from zobench.law.independent import Gaussian, Independent, Rademacher
from zobench.law.law import DenseDirection, Direction, Isotropic, Law, NativeDirection
from zobench.law.low_rank import LowRank
from zobench.law.per_tensor import PerTensor, PerTensorCredit
from zobench.law.small_weights import SmallWeights
from zobench.law.sphere import Orthogonal, Sphere

LAWS: dict[str, Law] = {
    "gaussian": Gaussian(),
    "rademacher": Rademacher(),
    "sphere": Sphere(),
    "orthogonal": Orthogonal(),
    "coordinate": Coordinate(),
    "distinct-coordinate": Coordinate(replace=False),
    "low-rank": LowRank(),
    "small-weights": SmallWeights(),
}
"""The laws by the names that `methods.make(law=...)` and command lines give them."""

__all__ = [
    "LAWS", "Coordinate", "DenseDirection", "Direction", "Gaussian", "Independent", "Isotropic", "Law", "LowRank",
    "NativeDirection", "Orthogonal", "PerTensor", "PerTensorCredit", "Rademacher", "SmallWeights", "Sphere",
]  # fmt: skip
