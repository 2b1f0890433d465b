"""The phase suite: which estimator is best where, predicted for every cell and measured where it matters.

Cells are (noise, dimension, bend, evaluations a step); `bend` b scales the terms beyond the quadratic ones as
psi(sqrt(b) s) / b does, so that 1/sqrt(b) is the length on which f stops being quadratic. One map gives all estimators
the same epsilon; the other gives each the epsilon that is best for it, by mean squared error or by expected descent.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from torch import Tensor

import zobench
from synthetic import predictable, problems
from synthetic.options import PhaseOptions
from synthetic.problems import ExactProblem
from zobench import LineEstimator, derive, theory
from zobench.problem import Problem
from zobench.run.progress import bar, note
from zobench.run.records import Row, Run
from zobench.theory import Forecast, equal_budget
from zobench.theory.best_epsilon import Goal
from zobench.theory.lines import Lines

BASELINE = "mezo"
COMMON, OWN_MSE, OWN_DESCENT = "common", "own, by mse", "own, by descent"


@dataclass(frozen=True)
class PhaseCell:
    """One place on a map."""

    map: str
    dim: int
    bend: float
    noise: float
    evaluations: int
    common_epsilon: float | None

    @property
    def identity(self) -> Row:
        """The columns that distinguish this cell's rows from others."""
        return asdict(self)


def run(options: PhaseOptions) -> None:
    """Run the command: PhaseOptions says what it does."""
    estimators = {name: predictable.parse(name) for name in options.methods}
    _check(options, estimators)
    record = Run(options.out, {"command": "phase", **asdict(options)})
    cells = list(_cells(options))
    with bar(total=len(cells), unit="cell") as progress:
        for dim in options.dims:
            for bend in options.bends:
                problem = bent(dim, bend, options.seed)
                x = problems.start(problem, options.seed)
                lines = Lines(problem, x)
                for cell in (c for c in cells if (c.dim, c.bend) == (dim, bend)):
                    done = {row["method"] for row in record.find(kind="phase", **cell.identity)}
                    if len(done) < len(estimators):
                        for row in _rows(cell, estimators, lines, options, done):
                            record.append(row)
                    progress.update()
                    progress.set_postfix_str(f"d {dim}, bend {bend:g}, noise {cell.noise:g}", refresh=False)
    print(summary(record.rows))
    note(f"rows: {record.folder / 'rows.jsonl'}")


def _check(options: PhaseOptions, estimators: dict[str, LineEstimator]) -> None:
    """Refuse before the first cell what would only fail in the last."""
    if BASELINE not in estimators:
        raise ValueError(
            f"methods are {options.methods}: {BASELINE} is missing, with which the others are compared: add it"
        )
    if not min(options.noises) > 0 or not min(options.bends) >= 0 or min(options.dims) < 1:
        raise ValueError(
            f"noises {options.noises}, bends {options.bends}, dims {options.dims}: give positive noises, bends of 0 or "
            "more and dims of 1 or more"
        )
    for name, estimator in estimators.items():
        if estimator.perturbed_by is None:
            raise ValueError(f"{name} has no epsilon to map: leave it out of --methods")
        for dim in options.dims:
            theory.spend(estimator, min(options.evaluations), dim)
        for epsilon in options.epsilons:
            predictable.parse(name, epsilon=epsilon)


def bent(dim: int, bend: float, seed: int) -> ExactProblem:
    """Return the sextic with its higher terms at this bend."""
    root = math.sqrt(bend)
    return problems.make("sextic", dim, cubic=root, quartic=4 * bend, sextic=16 * bend**2, seed=seed)


def _cells(options: PhaseOptions) -> Iterator[PhaseCell]:
    for dim in options.dims:
        for bend in options.bends:
            for noise in options.noises:
                for evaluations in options.evaluations:
                    for epsilon in options.epsilons:
                        yield PhaseCell(COMMON, dim, bend, noise, evaluations, epsilon)
                    for kind in (OWN_MSE, OWN_DESCENT):
                        yield PhaseCell(kind, dim, bend, noise, evaluations, None)


def _rows(
    cell: PhaseCell, estimators: dict[str, LineEstimator], lines: Lines, options: PhaseOptions, done: set[str]
) -> Iterator[Row]:
    """One row for each estimator that is not done; winners and chosen methods are sampled too."""
    forecasts = _forecasts(cell, estimators, lines)
    least = min(forecasts, key=lambda name: forecasts[name].mse)
    fastest = max(forecasts, key=lambda name: _gain(forecasts[name]))
    sampled = {least, fastest, *options.measured}
    for name, forecast in forecasts.items():
        if name in done:
            continue
        row = {
            **{"kind": "phase", **cell.identity, "method": name, "estimator": repr(forecast.estimator)},
            **{"epsilon": forecast.estimator.epsilon, "n": forecast.estimator.n, "bias": forecast.bias},
            **{"predicted_mse": forecast.mse, "predicted_decrease": forecast.decrease, "best_lr": forecast.best_lr},
            **{"least_mse": name == least, "fastest": name == fastest},
        }
        yield {**row, **(measure(forecast, cell, lines, options) if name in sampled else {})}


def _forecasts(cell: PhaseCell, estimators: dict[str, LineEstimator], lines: Lines) -> dict[str, Forecast]:
    given = estimators
    if cell.common_epsilon is not None:
        given = {name: predictable.parse(name, epsilon=cell.common_epsilon) for name in estimators}
    goals: dict[str, Goal | None] = {COMMON: None, OWN_MSE: "mse", OWN_DESCENT: "descent"}
    best = goals[cell.map]
    forecasts = equal_budget(given.values(), lines.problem, lines.x, cell.evaluations, cell.noise, best, lines)
    return dict(zip(given, forecasts, strict=True))


def _gain(forecast: Forecast) -> float:
    return -math.inf if math.isnan(forecast.decrease) else forecast.decrease


def measure(forecast: Forecast, cell: PhaseCell, lines: Lines, options: PhaseOptions) -> Row:
    """Return the sampled error and the sampled gain at the predicted best rate, with standard errors.

    The gain is that of the quadratic model, lr g . grad f - lr^2/2 g^T H g; `realised_decrease` is that of f itself.
    """
    estimator, problem, x = forecast.estimator, lines.problem, lines.x
    samples = int(min(20_000, max(20, options.entries / (estimator.n * cell.dim))))
    key = derive("phase", options.seed, cell.dim, cell.bend.hex(), cell.noise.hex(), cell.evaluations)
    drawn = _averages(estimator, problem, x, key, samples, cell.noise)
    errors = (drawn - lines.gradient).square().sum(1)
    row = {"samples": samples, "measured_mse": errors.mean(), "measured_mse_error": _standard_error(errors)}
    if math.isnan(forecast.best_lr):
        return row
    lr, hessian = forecast.best_lr, lines.hessian("the phase map")
    gains = lr * (drawn @ lines.gradient) - lr**2 / 2 * ((drawn @ hessian) * drawn).sum(1)
    realised = problem(x) - problem(x - lr * drawn)
    return {
        **row,
        "measured_decrease": gains.mean(),
        "measured_decrease_error": _standard_error(gains),
        "realised_decrease": realised.mean(),
    }


def _averages(estimator: LineEstimator, problem: Problem, x: Tensor, key: int, samples: int, noise: float) -> Tensor:
    """Estimates with n directions, as averages of n with one: the same mean and covariance if directions are
    independent, and drawn in far larger batches.
    """
    if estimator.law.orthogonal:
        return zobench.estimate(estimator, problem, x, key, samples, noise)
    single = zobench.estimate(replace(estimator, n=1), problem, x, key, samples * estimator.n, noise)
    return single.reshape(samples, estimator.n, -1).mean(1)


def _standard_error(values: Tensor) -> float:
    return float(values.std() / math.sqrt(len(values)))


def summary(rows: list[Row]) -> str:
    """Return who wins how many cells of each map, and how far KerZOO is from MeZO there."""
    lines = [f"{'map':18}{'epsilon':>9}  {'goal':8} cells  won by; KerZOO over MeZO: better in, median, best, worst"]
    cells = [row for row in rows if row["kind"] == "phase"]
    for name, epsilon in dict.fromkeys((row["map"], row["common_epsilon"]) for row in cells):
        mine = [row for row in cells if (row["map"], row["common_epsilon"]) == (name, epsilon)]
        for goal, flag in (("mse", "least_mse"), ("descent", "fastest")):
            if goal in name or name == COMMON:
                label = "own" if epsilon is None else f"{epsilon:g}"
                lines.append(f"{name:18}{label:>9}  {goal:8} {_line(mine, goal, flag)}")
    return "\n".join(lines)


def _line(rows: list[Row], goal: str, flag: str) -> str:
    winners = [row["method"] for row in rows if row[flag]]
    counts = sorted(((winners.count(name), name) for name in set(winners)), reverse=True)
    ratios = sorted(ratio for ratio in advantages(rows, goal) if ratio is not None)
    won = ", ".join(f"{name} {count}" for count, name in counts)
    if not ratios:
        return f"{len(winners):5d}  {won}"
    better = sum(ratio > 1 for ratio in ratios)
    middle = ratios[len(ratios) // 2]
    return f"{len(winners):5d}  {won}; {better} of {len(ratios)}, {middle:.3g}, {ratios[-1]:.3g}, {ratios[0]:.3g}"


def advantages(rows: list[Row], goal: str, method: str = "kerzoo") -> list[float | None]:
    """Return, cell by cell, how many times better than MeZO a method is predicted to be; None where neither gains."""
    coordinates = ("dim", "bend", "noise", "evaluations")
    by_cell = {(row["method"], *(row[p] for p in coordinates)): row for row in rows}
    ratios: list[float | None] = []
    for name, *cell in by_cell:
        if name == method and (BASELINE, *cell) in by_cell:
            one, base = by_cell[(method, *cell)], by_cell[(BASELINE, *cell)]
            top, bottom = (
                (base["predicted_mse"], one["predicted_mse"])
                if goal == "mse"
                else (one["predicted_decrease"], base["predicted_decrease"])
            )
            ratios.append(top / bottom if top is not None and bottom else None)
    return ratios
