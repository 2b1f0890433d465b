"""Searches over options: what is searched, and what the next trial should try."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from llm.options.studies import SAMPLERS
from zobench import derive
from zobench.naming import require_known

WORST = float("inf")

Value = int | float | str


class Tried(NamedTuple):
    """A trial that ended: its values, and what is to be low."""

    values: Mapping[str, Value]
    loss: float


@dataclass(frozen=True)
class Axis:
    """The values tried for one option: a range low:high, searched on a logarithmic scale, or a few choices."""

    low: float = 0.0
    high: float = 0.0
    choices: tuple[Value, ...] = ()

    @property
    def ends(self) -> tuple[Value, ...]:
        """The values to check before long work: those at the ends, or all choices."""
        return self.choices or (self.low, self.high)


def axis(name: str, given: Value) -> Axis | None:
    """Return the axis that an option is given as, "1e-6:1e-3" or "8,16,32"; None for a single value.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(given, str) or given == "auto":
        return None
    try:
        if ":" in given:
            low, high = map(float, given.split(":"))
            if not 0 < low < high < WORST:
                raise ValueError("low:high wants 0 < low < high")
            return Axis(low, high)
        choices = tuple(dict.fromkeys(_value(part) for part in given.split(",")))
    except ValueError as error:
        raise ValueError(f"{name} is {given!r} ({error}): give low:high, choices a,b,c, or one value") from None
    return Axis(choices=choices)


def _value(text: str) -> Value:
    """A choice as a number; a whole one is an int."""
    number = float(text)
    return int(number) if number.is_integer() else number


def propose(
    axes: Mapping[str, Axis], tried: Sequence[Tried], sampler: str, seed: int, number: int | None = None
) -> dict[str, Value]:
    """Return the values of the trial of a number, by default the next one.

    They are a function of the trials given, of the seed and of nothing else: the sampler is made anew for each
    trial, its generator seeded by (seed, number of the trial), so that an interrupted search proposes what an
    uninterrupted one does. An infinite loss is the worst there is.

    Raises:
        UnknownNameError: no such sampler.
        ValueError: optuna is not installed.
    """
    require_known(sampler, SAMPLERS, "sampler")
    optuna = library()
    made = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}[sampler]
    study = optuna.create_study(
        sampler=made(seed=derive("search", seed, len(tried) if number is None else number) % 2**32)
    )
    space = {name: _distribution(one) for name, one in axes.items()}
    for trial in tried:
        study.add_trial(optuna.trial.create_trial(params=dict(trial.values), distributions=space, value=trial.loss))
    return dict(study.ask(space).params)


def library() -> Any:
    """Return optuna, told to keep silent.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise ValueError("the search needs optuna: pip install 'optuna>=4'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _distribution(one: Axis) -> Any:
    distributions = library().distributions
    if one.choices:
        return distributions.CategoricalDistribution(one.choices)
    return distributions.FloatDistribution(one.low, one.high, log=True)
