"""The study: several methods at equal forward passes, each tuned with the same trials on dev, over several seeds."""

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from llm.loop.train import train
from llm.options.groups import DifferenceOptions, ModelOptions, ResultOptions, SelectionOptions, SplitOptions
from llm.options.train import SELECT, TrainOptions
from llm.steppers.method import TrainingMethod
from llm.studies.rates import chosen_rate, forward_passes_a_step, mean_dev_loss
from zobench.naming import require_known
from zobench.run.options import from_groups, option, unnamed
from zobench.run.records import Row, Run, within


@dataclass(frozen=True)
class StudyOptions(ResultOptions, SelectionOptions, DifferenceOptions, SplitOptions, ModelOptions):
    """Options of `python -m llm study`: those that all its runs share, and what tells them apart."""

    methods: tuple[str, ...] = option(
        ("mezo", "kerzoo", "forward", "richardson", "sgd", "adamw"),
        "methods to compare, each written as for train --method",
    )
    forward_passes: int = option(2000, "forward passes of a zeroth-order run")
    backward_passes: int = option(200, "backward passes (one a step) of a first-order run")
    rates: tuple[float, ...] = option((1e-4, 3e-4, 1e-3, 3e-3), "learning rates tried by each zeroth-order method")
    first_order_rates: tuple[float, ...] = option(
        (1e-3, 1e-2, 3e-2, 1e-1), "learning rates tried by each first-order method"
    )
    seeds: int = option(5, "number of runs of each method at its chosen learning rate")
    tuning_seeds: int = option(1, "number of further seeds, whose dev sets choose the learning rate")
    evaluations: int = option(10, "number of evaluations on dev in a run")
    out: str = "runs/study"


def run(options: StudyOptions) -> None:
    """Tune every method's learning rate on dev of other seeds, then run all seeds; an interrupted study resumes."""
    _check(options)
    record = Run(options.out, {"command": "study", **asdict(options)}, defaults=unnamed(StudyOptions))
    for method in options.methods:
        rates = options.first_order_rates if TrainingMethod.parse(method).backpropagates else options.rates
        lr = chosen_rate(record, method, rates, partial(_tuning_loss, options, method))
        finals = [_train(options, method, lr, seed, "seeds") for seed in range(options.seeds)]
        scores = ", ".join(f"{row['test_accuracy']:.1%}" for row in finals)
        print(f"{method}: lr {lr:g}; test {finals[0].get('metric', 'accuracy')} {scores}")


def _check(options: StudyOptions) -> None:
    """Refuse, before the first run, options with which a later run would fail."""
    counts = ("seeds", "tuning_seeds", "evaluations", "backward_passes")
    for name in counts:
        if getattr(options, name) < 1:
            raise ValueError(f"{name} is {getattr(options, name)}: give 1 or more")
    if not (options.methods and options.rates and options.first_order_rates):
        raise ValueError("give at least one of --methods, --rates and --first-order-rates")
    require_known(options.select, SELECT, "selection")
    for method in options.methods:
        TrainingMethod.parse(method).check(TrainOptions(method=method, epsilon=options.epsilon))
        if not TrainingMethod.parse(method).takes_steps:
            raise ValueError(f"{method} takes no step and has nothing to tune: python -m llm train --method {method}")
        if _steps(options, method) < 1:
            raise ValueError(f"forward_passes is {options.forward_passes}: not enough for one step of {method}")


def _tuning_loss(options: StudyOptions, method: str, lr: float) -> float:
    return mean_dev_loss(_train(options, method, lr, -1 - trial, "tune") for trial in range(options.tuning_seeds))


def _train(options: StudyOptions, method: str, lr: float, seed: int, group: str) -> Row:
    """The final row of one run, made now if it is not there."""
    steps = _steps(options, method)
    folder = within(Path(options.out), f"{group}/{method.replace(':', '_')}-lr{lr:g}-seed{seed}")
    own = {"method": method, "lr": lr, "seed": seed, "steps": steps, "out": str(folder), "save": False}
    every = max(1, steps // options.evaluations)
    return train(from_groups(TrainOptions, options, **own, journal=False, eval_every=every))


def _steps(options: StudyOptions, method: str) -> int:
    if TrainingMethod.parse(method).backpropagates:
        return options.backward_passes
    sizes = {"batch": options.batch, "train": options.train}
    return options.forward_passes // forward_passes_a_step(method, options.epsilon, **sizes)
