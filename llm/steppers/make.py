"""What takes the steps of a named method."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from llm import baselines
from llm.model import trainable
from llm.model.loading import LanguageModel
from llm.model.recompute import recompute_layers
from llm.steppers.first_order import FIRST_ORDER, FirstOrder
from llm.steppers.untrained import Untrained
from llm.steppers.zeroth_order import ZerothOrder, require_rounding, rounded
from zobench import ForwardGradient, methods, schedule
from zobench import rule as rules
from zobench.groups import Groups
from zobench.naming import require_known
from zobench.spelling import spelled

if TYPE_CHECKING:
    from llm.run.options import TrainOptions

Trainer = ZerothOrder | FirstOrder | Untrained


def check_method(text: str) -> None:
    """Raise ValueError unless the text names a zeroth-order method or a baseline with its options, or a first-order
    method.
    """
    name, _, extra = text.partition(":")
    known = [*(method.name for method in methods.table()), *FIRST_ORDER, *baselines.BASELINES]
    if spelled(text, known).is_own:
        methods.parse(text)
        return
    require_known(name, known, "method")
    if name in baselines.BASELINES:
        baselines.parse(text)
    elif name not in FIRST_ORDER:
        methods.parse(text)
    elif extra:
        raise ValueError(f"method {text!r}: {name} has no options of its own")


def check_steps(options: "TrainOptions") -> None:
    """Raise ValueError where no model's steps could be taken so: by options that a method lacks, or out of range."""
    if baselines.known(options.method):
        return
    schedule(options.schedule, options.lr, options.steps, options.warmup)
    if options.method not in FIRST_ORDER:
        methods.parse(options.method, epsilon=options.epsilon)
        rules.parse(options.rule, lr=options.lr, weight_decay=options.weight_decay)
        require_rounding(options.engine, options.rounding != "nearest")
    elif options.rounding != "nearest":
        raise ValueError(
            f"rounding is {options.rounding}, but {options.method} takes torch's own steps: leave --rounding out"
        )


def needs_gradient(method: str) -> bool:
    """Return whether the method differentiates the loss, backward or forward."""
    if method in FIRST_ORDER or baselines.known(method):
        return method in FIRST_ORDER
    return isinstance(methods.parse(method), ForwardGradient)


def make_trainer(
    options: "TrainOptions", language_model: LanguageModel, touched: Callable[[int], dict[str, list[int]]] | None = None
) -> Trainer:
    """Return what takes the steps of the named method, or for a baseline what stands in its place.

    Raises:
        ValueError: an option of the method is out of range, or epsilon is below the resolution of the weights.
    """
    if baselines.known(options.method):
        return Untrained(baselines.parse(options.method))
    groups = Groups(trainable.multipliers(language_model.model, options.rates, options.lr))
    rate = schedule(options.schedule, options.lr, options.steps, options.warmup)
    if options.method in FIRST_ORDER:
        if options.gradient_checkpointing:
            recompute_layers(language_model.model)
        return FirstOrder(language_model.model, options.method, rate, options.weight_decay, groups)
    estimator = methods.parse(options.method, epsilon=options.epsilon)
    engine = "in-forward" if options.engine == "auto" and options.rounding != "nearest" else options.engine
    rule = rules.parse(options.rule, lr=rate, weight_decay=options.weight_decay, groups=groups)
    how = (*rounded(options.rounding, options.dtype), touched, options.clip)
    return ZerothOrder(language_model.model, estimator, rule, engine, *how)
