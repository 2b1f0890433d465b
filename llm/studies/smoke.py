"""Every method of the table once on a language model: a smoke table with axes, which ranks nothing."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llm.loop.train import train
from llm.options.studies import SmokeOptions
from llm.options.train import TrainOptions
from llm.run.folder import ROWS
from llm.steppers.first_order import HYBRID
from llm.steppers.method import TrainingMethod, ZerothOrderMethod
from zobench import methods
from zobench.naming import require_known
from zobench.rule.schedule import GAINS
from zobench.run.options import from_groups
from zobench.run.progress import note
from zobench.run.records import Row, Run, within

KIND = "smoke-llm"
HEAD = ("method", "law x stencil x map x rule", "steps", "forward passes", "held", "lr", "dev loss")
USUAL = 3e-4
"""The best rate of mezo on spam in results/spam."""
RATES = {
    **dict.fromkeys(("kerzoo", "optimal", "chebyshev"), 1e-5),
    "kerzoo-code": 1e-4,
    **dict.fromkeys(("zo-adam", "zo-sgd-sign", "fzoo", "es", "eggroll"), 1e-3),
    **dict.fromkeys(("zo-momentum", "telescoping", "blockwise", "adalezo", "subzero"), 3e-5),
    **dict.fromkeys(("one-point", "one-point-residual", "coordinate"), 1e-7),
    "adamezo": 1e-5,
    "spall": 3e-3,
    **dict.fromkeys(("lozo-m", "dizo"), 1e-4),
    **dict.fromkeys(("zo-muon", "zo-muon-normalised", "zo-mopi"), 0.1),
}
"""Rates of methods whose steps are larger or smaller at one rate, by their second moments or units of their own."""


def run(options: SmokeOptions) -> None:
    """Run the command: SmokeOptions says what it does."""
    known = [*(row.name for row in methods.table()), HYBRID]
    for name in options.methods:
        require_known(name, known, "method")
    if options.steps < 1:
        raise ValueError(f"steps is {options.steps}: give 1 or more")
    record = Run(options.out, {"command": KIND, **asdict(options)})
    for method in options.methods or known:
        if not record.find(kind=KIND, method=method):
            record.append(_row(method, options, record.folder))
            print(_line(record.rows[-1]))
    note(f"rows: {record.folder / ROWS}")


def _row(method: str, options: SmokeOptions, folder: Path) -> Row:
    """The run of the rate with the lowest last dev loss; a run that fails is a row with its reason."""
    rates = options.rates or (RATES.get(method, USUAL),)
    try:
        runs = [_run(method, lr, options, within(folder, f"run/{lr:g}")) for lr in rates]
    except Exception as error:  # another method's row is none the worse
        return {"kind": KIND, "method": method, "status": "failed", "reason": f"{type(error).__name__}: {error}"}
    finally:
        shutil.rmtree(within(folder, "run"), ignore_errors=True)
    best = min(runs, key=lambda row: float("inf") if row["dev_loss"] is None else row["dev_loss"])
    held = next((row.memory for row in methods.table() if row.name == method), "gradients of the last block")
    lowered = best["dev_loss"] is not None and best["dev_loss"] < best["start_loss"]
    return {"kind": KIND, "method": method, **_axes(method), "memory": held, **best, "status": _status(best, lowered)}


def _status(best: Row, lowered: bool) -> str:
    return "ok" if lowered else "no progress" if best["status"] == "ok" else str(best["status"])


def _axes(method: str) -> Row:
    row = next((row for row in methods.table() if row.name == method), None)
    if row is not None:
        return dict(row.axes._asdict())
    return {"law": "Gaussian", "stencil": "Central", "map": "Identity", "rule": "sgd and backpropagation"}


def _run(method: str, lr: float, options: SmokeOptions, folder: Path) -> Row:
    shared: dict[str, Any] = {"baselines": False, "save": False, "journal": False, "select": "last"}
    shared |= {"eval_every": options.steps, "schedule": _schedule(method)}
    told = from_groups(TrainOptions, options, **shared, method=method, lr=lr, steps=options.steps, batch=options.batch)
    final = train(TrainOptions(**{**asdict(told), "out": str(folder)}))
    rows = map(json.loads, (folder / ROWS).read_text(encoding="utf-8").splitlines())
    first = next(row["dev_loss"] for row in rows if row["kind"] == "evaluation" and row["step"] == 0)
    names = ("model", "task", "estimator", "seed", "dev_loss", "forward_passes", "backward_passes", "skipped", "status")
    return {"lr": lr, "steps": options.steps, "start_loss": first, **{name: final[name] for name in names}}


def _schedule(method: str) -> str:
    """That of the paper, where it is no constant rate."""
    parsed = TrainingMethod.parse(method)
    falls = isinstance(parsed, ZerothOrderMethod) and parsed.row is not None and parsed.row.rate is not float
    return GAINS if falls else "constant"


def markdown(rows: Sequence[Row]) -> str:
    """Return the table of rows in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", f"| {' | '.join(['---'] * len(HEAD))} |"]
    return "\n".join([*lines, *(_line(row) for row in rows if row["kind"] == KIND)])


def _line(row: Row) -> str:
    if row["status"] == "failed":
        return f"| `{row['method']}` | failed: {row['reason']} |" + " |" * (len(HEAD) - 2)
    axes = " x ".join(str(row[name]) for name in ("law", "stencil", "map", "rule"))
    last = "diverged" if row["dev_loss"] is None else f"{row['dev_loss']:.3f}"
    cells = (f"`{row['method']}`", axes, row["steps"], row["forward_passes"], row["memory"], f"{row['lr']:g}")
    return f"| {' | '.join(map(str, cells))} | {row['start_loss']:.3f} → {last} |"
