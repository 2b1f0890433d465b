"""The runs of studies, one frame whatever kept them: rows of a comparison, or the run folders of a study."""

import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.outcomes import IDENTITY, outcomes
from analysis.rates import Grid, training
from analysis.rows import Results, RunRows

COLUMNS = [
    "study",
    "by",
    "model",
    "task",
    "arm",
    "method",
    "seed",
    "status",
    "test_accuracy",
    "forward_passes",
    "seconds",
]
COMPARISON = "comparison"
ROUNDING = 1e-12  # a mean of equal losses may lie below them
Curve = list[list[Any]]


def runs(results: Results) -> pd.DataFrame:
    """One row for each run that was compared: COLUMNS, and `curve`, its forward passes and dev losses. Of a model and a
    task that a planned comparison has, studies without a plan are left out.
    """
    rows = results.of("arm-run")
    rows = rows[rows["group"] == "seeds"].assign(study=rows["run"], by=COMPARISON)
    parents = [run.folder.resolve() for run in results.runs if run.name in set(rows["study"])]
    known = {run.name for run in results.runs if any(p in run.folder.resolve().parents for p in parents)}
    others = outcomes(results)
    others = others[~others["run"].isin(known) & (others["status"] != "failed") & ~others["repeat"]]
    folders = {run.name: _study(run) for run in results.runs}
    others = others.assign(study=others["run"].map(folders), by="study")
    others["curve"] = others["run"].map(_curves(results))
    compared = set(zip(rows["model"], rows["task"], strict=True))
    others = others[[place not in compared for place in zip(others["model"], others["task"], strict=True)]]
    both = pd.concat([frame.reindex(columns=[*COLUMNS, "curve"]) for frame in (rows, others)], ignore_index=True)
    return both.drop_duplicates(["study", "model", "task", "arm", "seed"], keep="last")


def _study(run: RunRows) -> str:
    """The folder of a study by one of its runs; a name alone might be that of a comparison too."""
    return str(run.folder.resolve().parent.parent)


def _curves(results: Results) -> dict[str, Curve]:
    rows = results.of("evaluation").drop_duplicates([*IDENTITY, "step"], keep="last").sort_values("forward_passes")
    pairs = rows.groupby("run")[["forward_passes", "dev_loss"]]
    return {str(run): mine.to_numpy().tolist() for run, mine in pairs}


def grids(results: Results, study: str) -> dict[str, Grid]:
    """The learning rates that each arm of a study tried."""
    inside = {run.name for run in results.runs if study in (run.name, _study(run))}
    frames = {kind: frame[frame["run"].isin(inside)] for kind, frame in results.frames.items()}
    return training(replace(results, frames=frames))


def passes_to(curve: Curve, loss: float) -> float:
    """The forward passes after which a dev loss, linear between evaluations, is reached; infinite if it never is."""
    before: tuple[float, float] | None = None
    for passes, found in ((float(p[0]), _number(p[1])) for p in curve if p[0] is not None):
        if found <= loss * (1 + ROUNDING):
            if before is None or math.isinf(before[1]):
                return passes
            share = (before[1] - loss) / (before[1] - found) if before[1] > found else 1.0
            return before[0] + share * (passes - before[0])
        before = (passes, found)
    return math.inf


def last_loss(curve: Curve) -> float:
    """The dev loss at the end; infinite where it is no number."""
    return _number(curve[-1][1]) if curve else math.inf


def _number(value: Any) -> float:
    return float(value) if value is not None and math.isfinite(value) else math.inf


def planned(results: Results) -> dict[tuple[str, str, str], int]:
    """The number of seeds that the plan of a comparison gives to each (study, task, arm)."""
    found: dict[tuple[str, str, str], int] = {}
    for run in results.runs:
        found |= _plan(run)
    return found


def _plan(run: RunRows) -> dict[tuple[str, str, str], int]:
    file = Path(str(run.config.get("plan", "")))
    if run.config.get("command") != "compare" or not file.is_file():
        return {}
    plan = tomllib.loads(file.read_text(encoding="utf-8"))
    return {
        (run.name, task, arm): min(about.get("seeds", 1), chosen.get("seeds", about.get("seeds", 1)))
        for task, about in plan.get("tasks", {}).items()
        for arm, chosen in plan.get("arms", {}).items()
        if task in chosen.get("tasks", plan["tasks"])
    }
