"""The study: several methods at equal forward passes, each tuned with the same trials on dev, over several seeds."""

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from llm.first_order import FIRST_ORDER
from llm.train import Session, TrainOptions
from zobench import methods
from zobench.options import option
from zobench.records import Row


@dataclass(frozen=True)
class StudyOptions:
    """Options of `python -m llm study`; the rest is as for train."""

    model: str = option("tiny-opt", "as for train")
    task: str = option("spam", "spam, sentences, sst2")
    data: str | None = option(None, "folder of the task's files")
    methods: tuple[str, ...] = option(("mezo", "kerzoo", "forward", "richardson", "sgd", "adamw"), "as for train")
    forward_passes: int = option(2000, "budget of a zeroth-order run")
    backward_passes: int = option(200, "steps of a first-order run")
    rates: tuple[float, ...] = option((1e-4, 3e-4, 1e-3, 3e-3), "learning rates tried by each zeroth-order method")
    first_order_rates: tuple[float, ...] = option((1e-3, 1e-2, 3e-2, 1e-1), "... by each first-order method")
    epsilon: float = option(1e-3, "displacement")
    seeds: int = option(5, "runs of each method at its rate")
    tuning_seeds: int = option(1, "other seeds, on whose dev sets the rate is chosen")
    batch: int = option(16, "examples a step")
    train: int = option(500, "training examples")
    dev: int = option(200, "development examples")
    test: int = option(300, "test examples")
    max_tokens: int = option(64, "prompts are cut from the left to this many tokens")
    evaluations: int = option(10, "evaluations on dev in a run")
    device: str = option("cpu", "cpu, cuda, ...")
    dtype: str = option("float32", "float32, bfloat16 or float16")
    provenance: str = option("live", "a word about where the rows come from")
    out: str = option("runs/study", "folder of the runs; finished ones are not repeated")


def run(options: StudyOptions) -> None:
    """Tune every method on dev of other seeds, then run all seeds at the chosen rates; resumes from its own runs."""
    finals: dict[str, list[Row]] = {}
    for method in options.methods:
        rates = options.first_order_rates if method in FIRST_ORDER else options.rates
        trials = {
            lr: [_dev_loss(_train(options, method, lr, -1 - t, "tune")) for t in range(options.tuning_seeds)]
            for lr in rates
        }
        lr = min(rates, key=lambda rate: sum(trials[rate]))
        if not math.isfinite(sum(trials[lr])):
            raise ValueError(f"{method} diverged at every rate of {rates}: give smaller ones")
        finals[method] = [_train(options, method, lr, seed, "seeds")[-1] for seed in range(options.seeds)]
        accuracies = ", ".join(f"{row['test_accuracy']:.1%}" for row in finals[method])
        print(
            f"{method}: lr {lr:g} (mean dev loss {sum(trials[lr]) / len(trials[lr]):.4f}); test accuracies {accuracies}"
        )


def _train(options: StudyOptions, method: str, lr: float, seed: int, group: str) -> list[Row]:
    """The rows of one run, made now if they are not there."""
    steps = _steps(options, method)
    folder = Path(options.out) / group / f"{method.replace(':', '_')}-lr{lr:g}-seed{seed}"
    shared = {f.name for f in fields(TrainOptions)} & {f.name for f in fields(StudyOptions)}
    copied: dict[str, Any] = {name: getattr(options, name) for name in shared - {"out"}}
    base = TrainOptions(
        **copied, method=method, lr=lr, seed=seed, steps=steps, out=str(folder), save=False, journal=False
    )
    session = Session(replace(base, eval_every=max(1, steps // options.evaluations)))
    session.go()
    return session.record.rows


def _steps(options: StudyOptions, method: str) -> int:
    if method in FIRST_ORDER:
        return options.backward_passes
    estimator = methods.parse(method, epsilon=options.epsilon)
    return options.forward_passes // estimator.ask(0, estimator.init()).queries


def _dev_loss(rows: list[Row]) -> float:
    """The last dev loss of a run, infinite if it diverged."""
    if rows[-1].get("status") != "ok":
        return math.inf
    last = [row for row in rows if row["kind"] == "evaluation"][-1]["dev_loss"]
    return math.inf if last is None else float(last)
