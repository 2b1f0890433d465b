"""The update rules by name."""

from typing import Any

from zobench.rule.adam import Adam
from zobench.rule.adamezo import AdaMeZO
from zobench.rule.factor_momentum import FactorMomentum
from zobench.rule.interpolated import Interpolated
from zobench.rule.momentum import Momentum
from zobench.rule.muon import Muon, NormalisedCore
from zobench.rule.power_muon import PowerMuon
from zobench.rule.rule import UpdateRule
from zobench.rule.sgd import SGD
from zobench.rule.sign import SignSGD
from zobench.rule.tensor_clip import TensorClip
from zobench.spelling import construct, made, spelled

RULES: dict[str, type[UpdateRule]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "adam": Adam,
    "sign": SignSGD,
    "adamezo": AdaMeZO,
    "tensor-clip": TensorClip,
    "interpolated": Interpolated,
    "factor-momentum": FactorMomentum,
    "muon": Muon,
    "normalised": NormalisedCore,
    "power-muon": PowerMuon,
}
"""The rules that `parse` knows."""

SHARED = ("lr", "weight_decay", "groups")


def parse(text: str, **shared: Any) -> UpdateRule:
    """Return the rule of a command-line spelling, `"adam:beta1=0.9,window=10"` or `"package.module:function"`; `shared`
    are its lr, weight_decay and groups.

    Raises:
        UnknownNameError: no such rule or option.
        ValueError: a part is not option=value, a value is out of range, or what was named makes no rule.
    """
    spelling = spelled(text, RULES)
    if spelling.is_own:
        rule = made(spelling.name, {**shared, **spelling.options})
        if not isinstance(rule, UpdateRule):
            raise ValueError(f"{spelling.name!r} makes {rule!r}, which is no zobench.UpdateRule")
        return rule
    return construct(spelling, RULES, "update rule", "option of the rule {}:", SHARED, **shared)
