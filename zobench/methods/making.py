"""Estimators and update rules of methods by name."""

from dataclasses import fields, replace
from typing import Any

from zobench import kernels
from zobench.auto import AutoEpsilon
from zobench.estimator import Estimator, LineEstimator
from zobench.law import LAWS
from zobench.maps import MAPS
from zobench.methods import laws, maps, rounds, rules, stencils
from zobench.methods.row import Method
from zobench.naming import require_known
from zobench.rule.rule import UpdateRule
from zobench.spelling import bracketed, made, own, spelled, taken

ROWS: tuple[Method, ...] = (*stencils.ROWS, *maps.ROWS, *laws.ROWS, *rules.ROWS, *rounds.ROWS)
AUTO = "auto"
LAW, KERNEL, MAP = "law", "kernel", "map"
NAMED: dict[str, dict[str, Any]] = {
    LAW: dict(LAWS),
    KERNEL: {"kerzoo5_as_printed": kernels.kerzoo5_as_printed()},
    MAP: MAPS,
}


def table() -> tuple[Method, ...]:
    """Return the rows: name, formula, loss evaluations a step, source, options with defaults."""
    return ROWS


def make(name: str, **options: Any) -> Estimator:
    """Return the estimator of a named method, `make("kerzoo", epsilon=1e-2, order=5, n=3)`; `law`, `map` and `kernel`
    may be objects, names, names with options as in "low-rank(rank=4)", or `package.module.function` of one's own.
    epsilon="auto" gives an AutoEpsilon with the method's law, stencil and n.

    >>> make("kerzoo", epsilon=1e-2, order=5, n=3).evaluations
    6

    Raises:
        UnknownNameError: no such method, option, law, map or kernel; the message names the nearest.
        ValueError: an option's value is out of range.
    """
    method = _row(name)
    chooses = _is_auto(options.get("epsilon"))
    if chooses and "epsilon" not in method.options:
        raise ValueError(f"epsilon is {AUTO!r}, but {name} has no epsilon to choose: leave it out")
    for option in options:
        require_known(option, method.options, f"option of method {name!r}:")
    named = {option: _named(option, value) for option, value in options.items()}
    if not chooses:
        return method.build(**named)
    built = method.build(**{option: value for option, value in named.items() if option != "epsilon"})
    if not isinstance(built, LineEstimator):
        raise ValueError(f"epsilon is {AUTO!r}, but {name} changes from step to step: give a number")
    if not built.linear:
        raise ValueError(f"epsilon is {AUTO!r}, but the map {built.map!r} is not linear in the losses: give a number")
    return AutoEpsilon(built.law, (built.stencil,), built.n)


def rule(name: str, lr: float, **shared: Any) -> UpdateRule:
    """Return the update rule that the paper of a method uses, at a learning rate; `shared` are weight_decay and groups.

    >>> rule("mezo", 1e-6)
    SGD(lr=1e-06, weight_decay=0.0, groups=Groups(multipliers={}, decay_multipliers={}))

    Raises:
        UnknownNameError: no such method.
        ValueError: a number is out of range.
    """
    return _row(name).update_rule(lr, **shared)


def rule_name(method: str) -> str:
    """Return the spelling of the update rule of a method as a command line spells it, "zo-adam:n=2": that of its paper,
    or "sgd" for a method of one's own.
    """
    name = method.partition(":")[0]
    return next((row.rule for row in ROWS if row.name == name), "sgd")


def _row(name: str) -> Method:
    by_name = {method.name: method for method in ROWS}
    require_known(name, by_name, "method")
    return by_name[name]


def _is_auto(value: Any) -> bool:
    return isinstance(value, str) and value == AUTO


def _named(option: str, value: Any) -> Any:
    """The part that an option's value names, `low-rank`, `low-rank(rank=4)` or `package.module.function`."""
    if not isinstance(value, str) or option not in NAMED:
        return value
    name, options = bracketed(value)
    if "." in name and name not in NAMED[option]:
        module, _, function = name.rpartition(".")
        return made(f"{module}:{function}", options)
    require_known(name, NAMED[option], option)
    part = NAMED[option][name]
    kind = part if isinstance(part, type) else type(part)
    known = [field.name for field in fields(kind) if field.init and field.repr]
    for each in options:
        require_known(each, known, f"option of the {option} {name}:")
    return part(**options) if isinstance(part, type) else replace(part, **options)


def parse(text: str, **defaults: Any) -> Estimator:
    """Return the estimator of a command-line spelling, `"kerzoo:order=5:n=3"`, or of a function of one's own,
    `"package.module:function:n=2"`, whose module is imported; `defaults` fill what it leaves out, as
    far as the method has it.

    >>> parse("mezo:n=3", epsilon=0.01) == make("mezo", epsilon=0.01, n=3)
    True

    Raises:
        UnknownNameError: no such method or option.
        ValueError: a part is not option=value, epsilon is "auto" of a method that has none, or a function of one's own
            cannot be imported or makes no estimator.
    """
    name, options = told = spelled(text, [method.name for method in ROWS])
    if told.is_own:
        return _made(name, {**taken(own(name), defaults), **options})
    known = next((method.options for method in ROWS if method.name == name), defaults)
    fitting = {option: value for option, value in defaults.items() if option in known or _is_auto(value)}
    return make(name, **{**fitting, **options})


def _made(name: str, options: dict[str, Any]) -> Estimator:
    found = made(name, options)
    if not isinstance(found, Estimator):
        raise ValueError(f"{name!r} makes {found!r}, which is no zobench.Estimator")
    return found
