"""The coefficient maps by name."""

from zobench.maps.coefficient_map import CoefficientMap, Identity
from zobench.maps.curvature import CurvatureWeight
from zobench.maps.entrywise import Clip, Sign
from zobench.maps.order import Ranks, Winsorise
from zobench.maps.standardised import LossSpread, PairSpread, ZScore

MAPS: dict[str, type[CoefficientMap]] = {
    "identity": Identity,
    "clip": Clip,
    "sign": Sign,
    "winsorise": Winsorise,
    "ranks": Ranks,
    "z-score": ZScore,
    "loss-spread": LossSpread,
    "pair-spread": PairSpread,
    "curvature": CurvatureWeight,
}
"""The maps by the names that `methods.make(map=...)` and command lines give them."""
