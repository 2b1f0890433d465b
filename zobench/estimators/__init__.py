"""Estimators of several rounds, closures or steps: what is no line of points alone.

Several choose a point by its loss. Their gradient is the way there divided by their option `lr`, so that SGD at that
learning rate steps to the point that was evaluated.
"""

from zobench.estimators.dizo import DiZO
from zobench.estimators.guided import Guided
from zobench.estimators.halving import Halving
from zobench.estimators.joint import JointOracle
from zobench.estimators.looking import Blocking, Conservative
from zobench.estimators.random_search import RandomSearch
from zobench.estimators.rank_search import RankSearch
from zobench.estimators.residual import Residual
from zobench.estimators.second_order import SecondOrderSPSA
from zobench.estimators.spsa import SPSA
from zobench.estimators.svrg import SVRG

__all__ = [
    "SPSA", "SVRG", "Blocking", "Conservative", "DiZO", "Guided", "Halving", "JointOracle", "RandomSearch",
    "RankSearch", "Residual", "SecondOrderSPSA",
]  # fmt: skip
