"""Coefficient maps: what a step makes of the slopes along its n lines, before they multiply the directions.

g = (1/n) sum_i y_i u_i with y = map(slopes). The identity is the only linear map; every other one gives up some of the
mean for something else: bounded influence of a wild loss, invariance under f -> a f + b, steps of one length.
`zobench.theory.linear_step` says what each does to the mean, to the second moment and to the descent of a step.
"""

from zobench.maps.coefficient_map import IDENTITY, CoefficientMap, Identity, Scalars
from zobench.maps.curvature import CurvatureWeight
from zobench.maps.entrywise import Clip, Sign
from zobench.maps.order import Ranks, Winsorise
from zobench.maps.scores import Scores, Slopes
from zobench.maps.standardised import LossSpread, PairSpread, ZScore
from zobench.maps.table import MAPS

__all__ = [
    "IDENTITY", "MAPS", "Clip", "CoefficientMap", "CurvatureWeight", "Identity", "LossSpread", "PairSpread", "Ranks",
    "Scalars", "Scores", "Sign", "Slopes", "Winsorise", "ZScore",
]  # fmt: skip
