"""The descent suite: the gain of every SGD step predicted before it is taken, then taken.

On a quadratic the prediction is the conditional expectation of the gain, so realised minus predicted gains are
martingale differences: their sum over a run, divided by the root of the sum of their squares, is about standard normal.
On other problems the prediction leaves out O(lr^3).
"""

import math
from collections.abc import Iterable
from dataclasses import asdict
from itertools import pairwise

import torch
from torch import Tensor

from synthetic import predictable, problems
from synthetic.options import DescentOptions
from zobench import FlatSpace, LineEstimator, derive, query
from zobench.evaluations import evaluations_a_step
from zobench.layout import CPU
from zobench.noise import NoisySpace, as_model
from zobench.problem import Problem, demand
from zobench.run.progress import bar, note
from zobench.run.records import Row, Run
from zobench.theory import DescentStep

BASELINE = "mezo"
OWN, EQUAL = "own best", "equal"


def run(options: DescentOptions) -> None:
    """Run the command: DescentOptions says what it does."""
    if options.seeds < 1 or options.evaluations < 4 or not options.fraction > 0:
        raise ValueError(
            f"seeds {options.seeds}, evaluations {options.evaluations}, fraction {options.fraction}: give 1, 4 or "
            "more, and a positive fraction"
        )
    if BASELINE not in options.methods:
        raise ValueError(
            f"methods are {options.methods}: {BASELINE} is missing, with which the others are compared: add it"
        )
    estimators = {name: predictable.parse(name, epsilon=options.epsilon, n=options.n) for name in options.methods}
    for name, estimator in estimators.items():
        if evaluations_a_step(estimator) > options.evaluations:
            raise ValueError(f"evaluations is {options.evaluations}: not enough for one step of {name}")
    chosen = {name: problems.make(name, options.dim, options.condition) for name in options.problem}
    for name, problem in chosen.items():
        if getattr(problem, "minimum", None) is None:
            raise ValueError(f"problem {name} has no known minimum to descend to: take one with .minimum")
        for estimator in estimators.values():
            DescentStep.of(estimator, problem, problems.start(problem), options.noise)  # refuses what a problem lacks
    record = Run(options.out, {"command": "descent", **asdict(options)})
    cells = [(name, rate, seed) for name in chosen for rate in (OWN, EQUAL) for seed in range(options.seeds)]
    with bar(cells, unit="seed") as progress:
        for name, rate, seed in progress:
            progress.set_postfix_str(f"{name}, {rate} rate")
            _one_seed(record, name, chosen[name], estimators, rate, seed, options)
    print(table(record.rows))
    note(f"rows: {record.folder / 'rows.jsonl'}")


def _one_seed(
    record: Run,
    name: str,
    problem: Problem,
    estimators: dict[str, LineEstimator],
    rate: str,
    seed: int,
    options: DescentOptions,
) -> None:
    start = problems.start(problem, seed)
    fixed = options.fraction * DescentStep.of(estimators[BASELINE], problem, start, options.noise).best_lr
    for method, estimator in estimators.items():
        cell = {"problem": name, "dim": problem.dim, "method": method, "rate": rate, "seed": seed}
        if not record.find(kind="descent", **cell):
            descended = descend(estimator, problem, start, fixed if rate == EQUAL else None, seed, options)
            record.append({"kind": "descent", **cell, "estimator": repr(estimator), **descended})


def descend(
    estimator: LineEstimator, problem: Problem, start: Tensor, lr: float | None, seed: int, options: DescentOptions
) -> Row:
    """Return the row of one run: gains predicted and realised, their z, and the gap to the minimum before and after;
    `predicted_share` and `realised_share` sum the gains in units of the gap before each step.

    `lr` None takes the best rate of each point, predicted anew.
    """
    noise, point = as_model(options.noise), start.clone()
    space = NoisySpace(point, noise) if noise else FlatSpace(point)
    cost = evaluations_a_step(estimator)
    least: float = demand(problem, "minimum", "the gap")
    gap = float(problem(start) - least)
    gaps, predicted, rates = [gap], [], []
    for step in range(options.evaluations // cost):
        forecast = DescentStep.of(estimator, problem, space.x, options.noise)
        rates.append(forecast.best_lr if lr is None else lr)
        predicted.append(forecast.decrease(rates[-1]))
        estimate = query(space, estimator, problem, derive("descent", seed, step), ())
        space.step_(estimate.gradient, -rates[-1])
        gaps.append(float(problem(space.x) - least))
    realised = [before - after for before, after in pairwise(gaps)]
    off = torch.tensor([a - b for a, b in zip(realised, predicted, strict=True)], dtype=torch.float64, device=CPU)
    return {
        **{"epsilon": options.epsilon, "noise": options.noise, "steps": len(rates), "evaluations": len(rates) * cost},
        **{"first_lr": rates[0], "first_predicted": predicted[0], "cost": cost, "z": float(off.sum() / off.norm())},
        **{"predicted": sum(predicted), "realised": sum(realised), "start_gap": gap, "final_gap": gaps[-1]},
        "predicted_share": sum(gain / before for gain, before in zip(predicted, gaps, strict=False)),
        "realised_share": sum(gain / before for gain, before in zip(realised, gaps, strict=False)),
    }


def table(rows: list[Row]) -> str:
    """Return, for each problem, rate and method, how much slower than MeZO a run is: in evaluations for the same share
    of the gap, predicted from the first step alone, predicted step by step along the run, and measured.
    """
    titles = f"{'slower: at start':>17}{'along run':>11}{'measured':>10}{'z':>7}"
    lines = [f"{'problem':11}{'rate':10}{'method':18}{titles}"]
    kept = [row for row in rows if row["kind"] == "descent"]
    for problem, rate in dict.fromkeys((row["problem"], row["rate"]) for row in kept):
        mine = [row for row in kept if (row["problem"], row["rate"]) == (problem, rate)]
        base = [row for row in mine if row["method"] == BASELINE]
        for method in dict.fromkeys(row["method"] for row in mine):
            own = [row for row in mine if row["method"] == method]
            z = sum(row["z"] for row in own) / math.sqrt(len(own))
            start, along, measured = (speed(base) / speed(own) for speed in (_at_start, _along, _measured))
            lines.append(f"{problem:11}{rate:10}{method:18}{start:17.3f}{along:11.3f}{measured:10.3f}{z:7.2f}")
    return "\n".join(lines)


def _at_start(rows: list[Row]) -> float:
    return _mean(row["first_predicted"] / row["start_gap"] / row["cost"] for row in rows)


def _along(rows: list[Row]) -> float:
    return _mean(row["predicted_share"] / row["evaluations"] for row in rows)


def _measured(rows: list[Row]) -> float:
    return _mean(row["realised_share"] / row["evaluations"] for row in rows)


def _mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)
