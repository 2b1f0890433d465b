"""The study: several methods at equal forward passes, each tuned with the same trials on dev, over several seeds."""

from dataclasses import asdict
from functools import partial
from pathlib import Path

from llm.loop.train import train
from llm.options.studies import StudyOptions
from llm.options.train import SELECT, TrainOptions
from llm.steppers.method import TrainingMethod
from llm.studies.overall import Overall
from llm.studies.rates import chosen_rate, forward_passes_a_step, mean_dev_loss
from zobench.naming import require_known
from zobench.numbers import require_rates
from zobench.run.options import from_groups, unnamed
from zobench.run.records import Row, Run, within


def run(options: StudyOptions) -> None:
    """Run the command: StudyOptions says what it does."""
    _check(options)
    record = Run(options.out, {"command": "study", **asdict(options)}, defaults=unnamed(StudyOptions))
    whole = _whole(options)
    for method in options.methods:
        lr = chosen_rate(record, method, _rates(options, method), partial(_tuning_loss, options, whole, method))
        finals = [_train(options, whole, method, lr, seed, "seeds") for seed in range(options.seeds)]
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
    require_rates("--rates", options.rates)
    require_rates("--first-order-rates", options.first_order_rates)
    require_known(options.select, SELECT, "selection")
    for method in options.methods:
        TrainingMethod.parse(method).check(TrainOptions(method=method, epsilon=options.epsilon))
        if not TrainingMethod.parse(method).takes_steps:
            raise ValueError(f"{method} takes no step and has nothing to tune: python -m llm train --method {method}")
        if _steps(options, method) < 1:
            raise ValueError(f"forward_passes is {options.forward_passes}: not enough for one step of {method}")


def _rates(options: StudyOptions, method: str) -> tuple[float, ...]:
    return options.first_order_rates if TrainingMethod.parse(method).backpropagates else options.rates


def _whole(options: StudyOptions) -> Overall:
    """All runs. Those at the chosen rates are named by their method and seed: no rate is chosen yet."""
    costs: dict[str, float] = {}
    for method in options.methods:
        cost = _steps(options, method) * forward_passes_a_step(method, options.epsilon)
        tuning = [
            _name(method, lr, -1 - trial) for lr in _rates(options, method) for trial in range(options.tuning_seeds)
        ]
        costs |= dict.fromkeys([*tuning, *(_name(method, None, seed) for seed in range(options.seeds))], cost)
    return Overall(costs)


def _name(method: str, lr: float | None, seed: int) -> str:
    return f"{method.replace(':', '_')}{'' if lr is None else f'-lr{lr:g}'}-seed{seed}"


def _tuning_loss(options: StudyOptions, whole: Overall, method: str, lr: float) -> float:
    trials = range(options.tuning_seeds)
    return mean_dev_loss(_train(options, whole, method, lr, -1 - trial, "tune") for trial in trials)


def _train(options: StudyOptions, whole: Overall, method: str, lr: float, seed: int, group: str) -> Row:
    """The final row of one run, made now if it is not there."""
    steps = _steps(options, method)
    folder = within(Path(options.out), f"{group}/{_name(method, lr, seed)}")
    own = {"method": method, "lr": lr, "seed": seed, "steps": steps, "out": str(folder), "save": False}
    every = max(1, steps // options.evaluations)
    with whole.run(_name(method, lr if group == "tune" else None, seed), folder):
        return train(from_groups(TrainOptions, options, **own, journal=False, eval_every=every))


def _steps(options: StudyOptions, method: str) -> int:
    if TrainingMethod.parse(method).backpropagates:
        return options.backward_passes
    sizes = {"batch": options.batch, "train": options.train}
    return options.forward_passes // forward_passes_a_step(method, options.epsilon, **sizes)
