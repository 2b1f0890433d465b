"""Names for what is compared: the method, and of its settings only those that tell its rows apart."""

import pandas as pd

from analysis import text
from analysis.rows import Results

# Configuration that says how a run was made or watched, not what was measured, never splits a method in two.
_INCIDENTAL = frozenset(
    {
        *("kind", "command", "model", "task", "method", "methods", "estimator", "problem", "problems"),
        *("seed", "seeds", "out", "name", "run", "runs", "folder", "provenance", "device", "threads"),
        *("workers", "resume", "journal", "preset", "baselines", "overwrite", "quiet", "verbose", "progress"),
        *("also", "also_examples"),
    }
)

# Options that a configuration leaves out where they are not given: nothing to tell then, rather than unknown.
_OPTIONAL = frozenset({"adapter", "bos", "clip", "data", "micro_batch", "patience"})


def label(frame: pd.DataFrame, within: list[str], settings: list[str]) -> pd.DataFrame:
    """Add the column `label`: the method, then `key=value` for settings that differ among its rows.

    Rows shipped with the repository instead of measured live say so in the label.
    """
    labelled = frame.assign(label=frame["method"])
    for key in settings:
        shown = labelled[key].map(lambda value: "" if pd.isna(value) else text.setting(value))
        values = shown.groupby([labelled[column] for column in (*within, "method")]).transform("nunique")
        told = f" {key}=" + shown.replace("", "?")
        labelled.loc[values > 1, "label"] += told.mask(shown == "", "") if key in _OPTIONAL else told
    shipped = labelled["provenance"] != "live"
    labelled.loc[shipped, "label"] += " (" + labelled.loc[shipped, "provenance"].str.split().str[0] + ")"
    return labelled


def with_settings(frame: pd.DataFrame, results: Results) -> tuple[pd.DataFrame, list[str]]:
    """Join rows with their run's configuration as far as it varies; also return the names of what varies."""
    configs = pd.DataFrame(
        [{key: _scalar(value) for key, value in run.config.items()} | {"run": run.name} for run in results.runs]
    )
    used = configs[configs["run"].isin(frame["run"].unique())]
    settings = [
        key
        for key in used.columns
        if key not in _INCIDENTAL and not key.startswith(("eval", "log", "checkpoint", "save"))
        if used[key].map(repr).nunique() > 1
    ]
    new = [key for key in used.columns if key in (*settings, "lr") and key not in frame.columns]
    return frame.merge(used[["run", *new]], on="run", how="left"), settings


def _scalar(value: object) -> object:
    return value if isinstance(value, str | int | float | bool) else str(value)
