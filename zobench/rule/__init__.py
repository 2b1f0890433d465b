"""Update rules: what is done with a gradient estimate. They are not part of the estimator."""

from zobench.rule.adam import Adam
from zobench.rule.adamezo import AdaMeZO
from zobench.rule.factor_momentum import FactorMomentum
from zobench.rule.interpolated import Interpolated
from zobench.rule.iterate_average import IterateAverage
from zobench.rule.momentum import Momentum
from zobench.rule.muon import Muon, NormalisedCore
from zobench.rule.power_muon import PowerMuon
from zobench.rule.rule import Memory, Memoryless, ScheduledRule, UpdateRule
from zobench.rule.schedule import Gains, Schedule, schedule
from zobench.rule.sgd import SGD
from zobench.rule.sign import SignSGD
from zobench.rule.table import RULES, parse
from zobench.rule.tensor_clip import TensorClip

__all__ = [
    "RULES",
    "SGD",
    "AdaMeZO",
    "Adam",
    "FactorMomentum",
    "Gains",
    "Interpolated",
    "IterateAverage",
    "Memory",
    "Memoryless",
    "Momentum",
    "Muon",
    "NormalisedCore",
    "PowerMuon",
    "Schedule",
    "ScheduledRule",
    "SignSGD",
    "TensorClip",
    "UpdateRule",
    "parse",
    "schedule",
]
