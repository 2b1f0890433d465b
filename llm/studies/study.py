"""The study: several methods at equal forward passes, each tuned with the same trials on dev, over several seeds."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from llm.loop.train import train
from llm.options.studies import StudyOptions
from llm.options.train import SELECT, TrainOptions
from llm.steppers.method import TrainingMethod
from llm.studies.overall import Overall, finished
from llm.studies.queue import Queue, require_workers
from llm.studies.rates import chosen_rate, forward_passes_a_step, mean_dev_loss
from llm.studies.runs import SEEDS, TUNE
from zobench.naming import require_known
from zobench.numbers import require_rates
from zobench.run.options import from_groups, unnamed
from zobench.run.records import Row, Run, within

FREE = ("workers", "backend", "cluster")


@dataclass(frozen=True)
class StudyRun:
    """A run of a study, which its own folder keeps. One that chooses a rate (not `tested`) leaves the test examples
    alone.
    """

    name: str
    options: TrainOptions
    study: Path
    tested: bool

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.options.out)

    def done(self) -> bool:
        """Return whether the rows of the run tell its end."""
        return finished(self.folder)

    def make(self) -> None:
        """Make the run, or let it go on."""
        self.ended()

    def ended(self) -> Row:
        """Return the final row of the run, which is made if it has not ended."""
        return train(self.options, self.tested)


def run(options: StudyOptions) -> None:
    """Run the command: StudyOptions says what it does."""
    _check(options)
    config = {"command": "study", **asdict(options)}
    record = Run.joined(options.out, config, defaults=unnamed(StudyOptions), free=FREE)
    queue = Queue.of(options, whole=_whole(options))
    queue.finish(_trial(options, method, lr, seed) for method, lr, seed in _trials(options))
    rates = {method: _chosen(record, options, method) for method in options.methods}
    runs = {method: [_seed(options, method, lr, n) for n in range(options.seeds)] for method, lr in rates.items()}
    left = {method: {job.name for job in jobs} for method, jobs in runs.items()}

    def told(job: StudyRun) -> None:
        method = job.options.method
        left[method].discard(job.name)
        if not left[method]:
            _tell(method, rates[method], [one.ended() for one in runs[method]])

    queue.finish((job for jobs in runs.values() for job in jobs), told)


def _tell(method: str, lr: float, finals: list[Row]) -> None:
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
    require_workers(options)
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
        tuning = [_name(*each) for each in _trials(options) if each[0] == method]
        costs |= dict.fromkeys([*tuning, *(_name(method, None, seed) for seed in range(options.seeds))], cost)
    return Overall(costs)


def _name(method: str, lr: float | None, seed: int) -> str:
    return f"{method.replace(':', '_')}{'' if lr is None else f'-lr{lr:g}'}-seed{seed}"


def _trials(options: StudyOptions) -> Iterator[tuple[str, float, int]]:
    """Method, rate and seed of each run that chooses a rate."""
    for method in options.methods:
        yield from ((method, lr, -1 - i) for lr in _rates(options, method) for i in range(options.tuning_seeds))


def _chosen(record: Run, options: StudyOptions, method: str) -> float:
    def loss_at(lr: float) -> float:
        trials = (_trial(options, *each) for each in _trials(options) if each[:2] == (method, lr))
        return mean_dev_loss(job.ended() for job in trials)

    with record.shared():
        return chosen_rate(record, method, _rates(options, method), loss_at)


def _trial(options: StudyOptions, method: str, lr: float, seed: int) -> StudyRun:
    return _run(options, method, lr, seed, TUNE, _name(method, lr, seed))


def _seed(options: StudyOptions, method: str, lr: float, seed: int) -> StudyRun:
    return _run(options, method, lr, seed, SEEDS, _name(method, None, seed))


def _run(options: StudyOptions, method: str, lr: float, seed: int, group: str, name: str) -> StudyRun:
    steps = _steps(options, method)
    folder = within(Path(options.out), f"{group}/{_name(method, lr, seed)}")
    own = {"method": method, "lr": lr, "seed": seed, "steps": steps, "out": str(folder), "save": False}
    every = max(1, steps // options.evaluations)
    given = from_groups(TrainOptions, options, **own, journal=False, eval_every=every)
    return StudyRun(name, given, Path(options.out), group == SEEDS)


def _steps(options: StudyOptions, method: str) -> int:
    if TrainingMethod.parse(method).backpropagates:
        return options.backward_passes
    sizes = {"batch": options.batch, "train": options.train}
    return options.forward_passes // forward_passes_a_step(method, options.epsilon, **sizes)
