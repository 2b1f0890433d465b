"""The convergence suite: loss against evaluations, each method at the learning rate that tuning found for it."""

from dataclasses import asdict, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from synthetic import peers, problems
from synthetic.options import ConvergeOptions
from synthetic.peers import Peer
from zobench import SGD, Combination, Estimator, FlatSpace, derive, methods, query
from zobench.evaluations import evaluations_a_step
from zobench.numbers import require_rates
from zobench.problem import Problem
from zobench.run.progress import bar, note
from zobench.run.records import Run

DIVERGED = 1e6
OVERFLOW = 1e60  # beyond this the next step could not be evaluated


def run(options: ConvergeOptions) -> None:
    """Run the command: ConvergeOptions says what it does."""
    problem = problems.make(options.problem, options.dim, options.condition)
    if getattr(problem, "minimum", None) is None:
        raise ValueError(
            f"problem {options.problem} has no known minimum to converge to: take quadratic, quartic "
            "or sextic, or declare .minimum on your own problem"
        )
    if min(options.seeds, options.tuning_seeds, options.points, len(options.rates), len(options.methods)) < 1:
        raise ValueError("--seeds, --tuning-seeds, --points, --rates and --methods each need at least one entry")
    require_rates("--rates", options.rates)
    estimators = {name: _made(name, options.epsilon) for name in options.methods}
    for name, estimator in estimators.items():
        if not isinstance(estimator, Peer) and evaluations_a_step(estimator) > options.evaluations:
            raise ValueError(f"evaluations is {options.evaluations}: not enough for one step of {name}")
    record = Run(options.out, {"command": "converge", **asdict(options)})
    with bar(total=len(estimators) * (len(options.rates) + 1), unit="run") as progress:
        for name, estimator in estimators.items():
            lr = _tuned(record, name, estimator, problem, options, progress)
            progress.set_postfix_str(f"{name}: lr {lr:g}")
            if not record.find(kind="end", method=name):
                _final(record, name, estimator, problem, options, lr)
            progress.update()
    print(table(record.rows))
    note(f"rows: {record.folder / 'rows.jsonl'}")


def _made(name: str, epsilon: float) -> Estimator | Peer:
    return peers.find(name) if name.startswith(peers.PREFIX) else methods.parse(name, epsilon=epsilon)


def _tuned(
    record: Run, name: str, estimator: Estimator | Peer, problem: Problem, options: ConvergeOptions, progress: Any
) -> float:
    """The rate with the least mean final loss on the tuning seeds, all rates tried, diverged ones too."""
    seeds = range(-options.tuning_seeds, 0)
    if isinstance(estimator, Peer) and not estimator.rated:
        progress.update(len(options.rates))
        return options.rates[0]
    for lr in options.rates:
        if not record.find(kind="tune", method=name, lr=lr):
            final = descend(estimator, problem, options, lr, list(seeds))[-1].losses
            diverged = not bool((final.abs() < DIVERGED).all())
            row = {"kind": "tune", "method": name, "problem": options.problem, "dim": problem.dim, "lr": lr}
            status = "diverged" if diverged else "ok"
            record.append({**row, "seeds": len(seeds), "loss": None if diverged else final.mean(), "status": status})
        progress.update()
    finished = [row for row in record.find(kind="tune", method=name) if row["status"] == "ok"]
    if not finished:
        raise ValueError(f"{name} diverged at every rate in {options.rates}: give smaller --rates")
    return float(min(finished, key=lambda row: row["loss"])["lr"])


def _final(
    record: Run, name: str, estimator: Estimator | Peer, problem: Problem, options: ConvergeOptions, lr: float
) -> None:
    seeds = list(range(options.seeds))
    common = {"method": name, "estimator": repr(estimator), "problem": options.problem, "dim": problem.dim, "lr": lr}
    common |= {"theory": estimator.theory} if isinstance(estimator, Peer) else {}
    minimum = getattr(problem, "minimum", None)
    kept = {(row["seed"], row["step"]) for row in record.find(kind="converge", method=name)}
    for step, evaluations, losses in descend(estimator, problem, options, lr, seeds):
        for seed, loss in zip(seeds, losses.tolist(), strict=True):
            if (seed, step) in kept:
                continue
            row = {"seed": seed, "epsilon": options.epsilon, "step": step, "evaluations": evaluations, "loss": loss}
            gap = None if minimum is None else loss - minimum
            record.append({"kind": "converge", **common, **row, "gap": gap, "status": _status(loss)})
    record.append({"kind": "end", **common})


def _status(loss: float) -> str:
    return "ok" if abs(loss) < DIVERGED else "diverged"


class Reached(NamedTuple):
    """The loss of each seed after so many steps and evaluations."""

    step: int
    evaluations: int
    losses: Tensor


def descend(
    estimator: Estimator | Peer, problem: Problem, options: ConvergeOptions, lr: float, seeds: list[int]
) -> list[Reached]:
    """Return what SGD reaches from the seeds' starting points; all seeds are one batch.

    Steps spend the budget of evaluations, as far as it pays another; a seed whose loss passes 1e6 has diverged. A peer
    runs seed by seed, with random numbers of its own: the starting points are the same, the directions are not.
    """
    if isinstance(estimator, Peer):
        told = estimator.reached(problem, lr, options.epsilon, seeds, options.evaluations, options.points)
        return [Reached(*each) for each in told]
    if isinstance(getattr(estimator, "lr", None), float):  # it compares the points that SGD would step to
        chosen: Any = estimator
        found: Estimator = replace(chosen, lr=lr)
        return _descended(found, problem, options, lr, seeds)
    return _descended(estimator, problem, options, lr, seeds)


def _descended(
    estimator: Estimator, problem: Problem, options: ConvergeOptions, lr: float, seeds: list[int]
) -> list[Reached]:
    points = torch.stack([problems.start(problem, seed) for seed in seeds])
    space, rule = FlatSpace(points), SGD(lr)
    memory, state = rule.init(space), estimator.init()
    cost, step, spent = evaluations_a_step(estimator), 0, 0
    every = max(1, options.evaluations // cost // options.points)
    curve = [Reached(0, 0, problem(space.x))]
    while spent + cost <= options.evaluations:
        step += 1
        estimate = query(space, estimator, problem, derive("converge", seeds[0], step), state, (len(seeds),))
        memory, state = rule.apply_(space, _of_living(estimate.gradient), memory), estimate.state
        spent += estimate.queries
        if step % every == 0 or spent + cost > options.evaluations:
            curve.append(Reached(step, spent, problem(space.x)))
    return curve


def _of_living(gradient: Combination) -> Combination:
    """The gradient with coefficients that are not finite at 0: a diverged seed stays where it is, and stays counted."""
    return Combination(tuple(t._replace(coefficients=_finite(t.coefficients)) for t in gradient.terms))


def _finite(coefficients: Tensor) -> Tensor:
    return coefficients.where(coefficients.abs() < OVERFLOW, 0.0)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the final loss of each method: median, least and greatest over the seeds."""
    lines = [f"{'method':16}{'lr':>10}{'evaluations':>13}{'median loss':>13}{'least':>11}{'greatest':>11}"]
    runs = [row for row in rows if row["kind"] == "converge"]
    for method in dict.fromkeys(row["method"] for row in runs):
        mine = [row for row in runs if row["method"] == method]
        last = max(row["step"] for row in mine)
        final = [row for row in mine if row["step"] == last]
        losses = sorted(float("inf") if row["loss"] is None else row["loss"] for row in final)
        lines.append(
            f"{method:16}{final[0]['lr']:10.4g}{final[0]['evaluations']:13d}{losses[len(losses) // 2]:13.4e}"
            f"{losses[0]:11.3e}{losses[-1]:11.3e}"
        )
        lines += [f"  {final[0]['theory']}"] if "theory" in final[0] else []
    return "\n".join(lines)
