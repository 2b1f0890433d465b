"""Laws of directions: what u is in g = sum_i c_i u_i.

Every law of the class Isotropic has mean zero, u ~ -u and E[u u^T] = I, so that c u with c = u . grad f is an unbiased
estimate of grad f. A law never holds a direction: it draws one anew, block by block in any order, from (key, direction,
parameter, entry).
"""

from zobench.law.adaptive import AdaptiveLaw
from zobench.law.bandit import BlockBandit, BlockBanditCredit
from zobench.law.blocks import Blocks, BlocksCredit, OneBlock
from zobench.law.cone import Cone
from zobench.law.coordinate import Coordinate
from zobench.law.diagonal import Diagonal
from zobench.law.factors import Coordinates
from zobench.law.independent import Gaussian, Independent, Rademacher, Uniform
from zobench.law.inverse_curvature import InverseCurvature
from zobench.law.law import DenseDirection, Direction, Isotropic, Kept, Law, NativeDirection
from zobench.law.low_rank import LowRank
from zobench.law.per_tensor import PerTensor, PerTensorCredit
from zobench.law.radial import Radial
from zobench.law.random_mask import RandomMask
from zobench.law.small_weights import SmallWeights
from zobench.law.sphere import Orthogonal, Sphere
from zobench.law.subspace import Subspace
from zobench.law.tied import Tied

LAWS: dict[str, Law] = {
    "gaussian": Gaussian(),
    "rademacher": Rademacher(),
    "uniform": Uniform(),
    "sphere": Sphere(),
    "orthogonal": Orthogonal(),
    "coordinate": Coordinate(),
    "distinct-coordinate": Coordinate(replace=False),
    "low-rank": LowRank(),
    "small-weights": SmallWeights(),
    "subspace": Subspace(),
    "random-mask": RandomMask(),
    "blocks": Blocks(),
    "tied": Tied(),
}
"""The laws by the names that `methods.make(law=...)` and command lines give them."""

__all__ = [
    "LAWS", "AdaptiveLaw", "BlockBandit", "BlockBanditCredit", "Blocks", "BlocksCredit", "Cone", "Coordinate",
    "Coordinates", "DenseDirection", "Diagonal", "Direction", "Gaussian", "Independent", "InverseCurvature",
    "Isotropic", "Kept", "Law", "LowRank", "NativeDirection", "OneBlock", "Orthogonal", "PerTensor", "PerTensorCredit",
    "Rademacher", "Radial", "RandomMask", "SmallWeights", "Sphere", "Subspace", "Tied", "Uniform",
]  # fmt: skip
