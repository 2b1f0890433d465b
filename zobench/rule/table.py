"""The update rules by name."""

from dataclasses import fields
from typing import Any

from zobench.naming import require_known
from zobench.rule.adam import Adam
from zobench.rule.momentum import Momentum
from zobench.rule.rule import UpdateRule
from zobench.rule.sgd import SGD
from zobench.spelling import made, spelled

RULES: dict[str, type[UpdateRule]] = {"sgd": SGD, "momentum": Momentum, "adam": Adam}
"""The rules that `parse` knows."""

SHARED = ("lr", "weight_decay", "groups")


def parse(text: str, **shared: Any) -> UpdateRule:
    """Return the rule of a command-line spelling, `"adam:beta1=0.9,window=10"` or `"package.module:function"`; `shared`
    are its lr, weight_decay and groups.

    Raises:
        UnknownNameError: no such rule or option.
        ValueError: a part is not option=value, a value is out of range, or what was named makes no rule.
    """
    name, options = told = spelled(text, RULES)
    if told.is_own:
        rule = made(name, {**shared, **options})
        if not isinstance(rule, UpdateRule):
            raise ValueError(f"{name!r} makes {rule!r}, which is no zobench.UpdateRule")
        return rule
    require_known(name, RULES, "update rule")
    known = [f.name for f in fields(RULES[name]) if f.name not in SHARED]  # type: ignore[arg-type]
    for option in options:
        require_known(option, known, f"option of the rule {name}:")
    return RULES[name](**shared, **options)
