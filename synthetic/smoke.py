"""Every method of the table once, with the options and the update rule of its row, on a few problems.

A smoke table: it shows that each method lowers a loss where its paper would have it run. The learning rate is the best
of a coarse grid on the very run that is shown, so that nothing here ranks methods. Methods that step in one layer after
the other see three layers.
"""

import math
from dataclasses import asdict
from typing import Any

import torch

from synthetic import problems
from synthetic.options import SmokeOptions
from zobench import FlatSpace, derive, methods, query
from zobench.layout import Layout
from zobench.methods import Method
from zobench.naming import require_known
from zobench.numbers import require_rates
from zobench.problem import Problem
from zobench.run.progress import bar, note
from zobench.run.records import Run

SHAPES: dict[str, tuple[int, ...]] = {
    name: shape for layer in range(3) for name, shape in ((f"{layer}.weight", (5, 4)), (f"{layer}.bias", (6,)))
}
"""The tensors that x is cut into, three layers of a matrix and a vector: laws of tensors have matrices of one shape,
and laws of blocks have several blocks.
"""
DIM = sum(math.prod(shape) for shape in SHAPES.values())


def run(options: SmokeOptions) -> None:
    """Run the command: SmokeOptions says what it does."""
    require_rates("--rates", options.rates)
    rows = {method.name: method for method in methods.table()}
    for name in options.methods:
        require_known(name, rows, "method")
    chosen = [rows[name] for name in options.methods or rows]
    made = {name: problems.make(name, DIM) for name in options.problems}
    record = Run(options.out, {"command": "smoke", **asdict(options)})
    cells = [(method, name) for method in chosen for name in made]
    with bar(cells, unit="run") as progress:
        for method, name in progress:
            progress.set_postfix_str(f"{method.name} on {name}")
            if not record.find(kind="smoke", method=method.name, problem=name):
                record.append(_row(method, name, made[name], options))
    print(table(record.rows))
    note(f"rows: {record.folder / 'rows.jsonl'}")


def _row(method: Method, name: str, problem: Problem, options: SmokeOptions) -> dict[str, Any]:
    """The run of the rate with the lowest last loss."""
    start = problems.start(problem, options.seed)
    losses = {lr: descend(method, problem, start, lr, options) for lr in options.rates}
    lr = min(losses, key=losses.__getitem__)
    first, last = float(problem(start)), losses[lr]
    status = "ok" if last < first else "no progress"
    return {
        "kind": "smoke", "method": method.name, "estimator": repr(method.build()), **method.axes._asdict(),
        "problem": name, "dim": problem.dim, "lr": lr, "evaluations": options.evaluations, "seed": options.seed,
        "start_loss": first, "loss": last, "status": status,
    }  # fmt: skip


def descend(method: Method, problem: Problem, start: torch.Tensor, lr: float, options: SmokeOptions) -> float:
    """Return the loss after the evaluations; infinite where it is no number."""
    space, estimator, rule = FlatSpace(start.clone(), layout=Layout.of(SHAPES)), method.build(), method.update_rule(lr)
    state, memory, spent, step = estimator.init(), rule.init(space), 0, 0
    f = {"": problem, "whole": problem}
    while spent < options.evaluations:
        estimate = query(space, estimator, f, derive("smoke", options.seed, step), state)
        state, spent, step = estimate.state, spent + estimate.queries, step + 1
        if not estimate.gradient.finite or not bool(space.x.isfinite().all()):
            return math.inf
        memory = rule.apply_(space, estimate.gradient, memory)
    last = float(problem(space.x))
    return last if math.isfinite(last) else math.inf


def table(rows: list[dict[str, Any]]) -> str:
    """Return the share of the loss at the start that is left, method by problem."""
    rows = [row for row in rows if row["kind"] == "smoke"]
    names = list(dict.fromkeys(row["problem"] for row in rows))
    lines = [f"{'method':22}{'law x stencil x map x rule':60}" + "".join(f"{name:>13}" for name in names)]
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = {row["problem"]: row for row in rows if row["method"] == method}
        first = next(iter(mine.values()))
        axes = " x ".join(str(first[axis]) for axis in ("law", "stencil", "map", "rule"))
        left = "".join(f"{_left(mine.get(name)):>13}" for name in names)
        lines.append(f"{method:22}{axes:60}{left}")
    return "\n".join([*lines, "loss after the run over the loss at the start, at the best of the rates: no ranking"])


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return what `table` does, in Markdown, without the axes."""
    rows = [row for row in rows if row["kind"] == "smoke"]
    names = list(dict.fromkeys(row["problem"] for row in rows))
    lines = [f"| method | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = {row["problem"]: row for row in rows if row["method"] == method}
        lines.append(f"| `{method}` | {' | '.join(_left(mine.get(name)) for name in names)} |")
    return "\n".join(lines)


def _left(row: dict[str, Any] | None) -> str:
    if row is None:
        return "-"
    return "diverged" if row["loss"] is None else f"{row['loss'] / row['start_loss']:.3g}"
