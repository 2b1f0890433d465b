"""Fine-tuning rows -> what became of each run, and its trajectory, with every run accounted for."""

import numpy as np
import pandas as pd

from analysis.labels import label, with_settings
from analysis.rates import arm
from analysis.rows import Results

ACCURACY = "accuracy"  # of rows that name no metric
IDENTITY = ["run", "model", "task", "method", "seed"]
CELL = ["model", "task"]
COUNTED = (
    "ok",
    "diverged",
)  # ends a method is answerable for; interrupted, failed and unfinished runs are listed


def outcomes(results: Results) -> pd.DataFrame:
    """One row for each training run: its `label`, `arm`, `status` and, where it ended, its final measurements.

    status is that of the last final row (a resumed run has several); else "failed" where there is a failure
    row, "unfinished" where there is neither. `repeat` marks a run whose label and seed already ended in an
    earlier folder: it is no independent evidence and is left out of statistics. Runs that chose a learning rate, which
    have negative seeds, are no outcomes: see `rates`.
    """
    columns = [*IDENTITY, "provenance"]
    seen = pd.concat([results.of(kind)[columns] for kind in ("final", "evaluation", "failure", "step")])
    seen = seen[seen["seed"] >= 0].drop_duplicates(IDENTITY).reset_index(drop=True)
    final = results.of("final").drop_duplicates(IDENTITY, keep="last").drop(columns=["provenance", "metric"])
    failure = results.of("failure").drop_duplicates(IDENTITY, keep="last")[[*IDENTITY, "reason"]]
    ends = seen.merge(final, on=IDENTITY, how="left").merge(failure, on=IDENTITY, how="left")
    without = np.where(ends["reason"].notna(), "failed", "unfinished")
    ends["status"] = ends["status"].where(ends["status"].notna(), pd.Series(without, index=ends.index))
    ends["metric"] = _metrics(ends, results)
    ends["arm"] = [arm(method, results.config_of(run)) for method, run in zip(ends["method"], ends["run"], strict=True)]
    ends, settings = with_settings(ends, results)
    ends = label(ends, CELL, settings)
    counted = ends["status"].isin(COUNTED)
    ends["repeat"] = False
    ends.loc[counted, "repeat"] = ends[counted].duplicated([*CELL, "label", "seed"])
    return ends


def _metrics(ends: pd.DataFrame, results: Results) -> pd.Series:
    """The metric of each run by its last measurement, or that of the other runs on its task where it has none."""
    rows = pd.concat([results.of(kind)[[*IDENTITY, "metric"]] for kind in ("evaluation", "final")])
    rows = rows.fillna({"metric": ACCURACY}).drop_duplicates(IDENTITY, keep="last")
    said = ends.merge(rows, on=IDENTITY, how="left")["metric"].set_axis(ends.index)
    return said.fillna(said.groupby([ends[name] for name in CELL]).transform("first")).fillna(ACCURACY)


def metric_name(metrics: pd.Series) -> str:
    """The metric in the columns named accuracy: the metric that all runs have, or `score`."""
    names = metrics.unique()
    return str(names[0]) if len(names) == 1 else "score"


def levels(results: Results) -> pd.DataFrame:
    """Baseline rows, without those of the seeds that chose a learning rate."""
    rows = results.of("baseline")
    return rows[~(rows["seed"] < 0)]


def counted(ends: pd.DataFrame) -> pd.DataFrame:
    """The runs whose test accuracy enters the statistics."""
    return ends[ends["status"].isin(COUNTED) & ~ends["repeat"] & ends["test_accuracy"].notna()]


def trajectories(results: Results, ends: pd.DataFrame) -> pd.DataFrame:
    """Evaluation rows with label, status and metric of their run; of steps written twice (a resumed run) the last."""
    evaluations = results.of("evaluation").drop(columns="metric").drop_duplicates([*IDENTITY, "step"], keep="last")
    joined = evaluations.merge(ends.loc[~ends["repeat"], [*IDENTITY, "label", "status", "metric"]], on=IDENTITY)
    return joined.sort_values([*IDENTITY, "step"], ignore_index=True)
