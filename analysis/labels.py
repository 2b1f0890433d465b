"""The name by which a figure, a table or a sentence calls what was compared: one rule for all of them.

A label is the method and the fewest settings that tell its rows apart. A setting that was left out of a configuration,
or did not exist when it was written, has the value that this meant then. Values that are the default are not said.
Rows shipped with the repository say so only beside live rows of the same settings.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations, count
from pathlib import PurePath
from typing import Any

import pandas as pd

from analysis import text
from analysis.rows import Results, tidy
from zobench import methods
from zobench.figures.frame import method_name

LONGEST = 40  # characters of a label; column `setting` has what a label has no room for
_ELLIPSIS = " …"

# How a run was made or watched, not what was measured: never splits a method in two.
_INCIDENTAL = frozenset(
    {
        *("kind", "command", "model", "task", "method", "methods", "estimator", "problem", "problems"),
        *("seed", "seeds", "out", "name", "run", "runs", "folder", "provenance", "device", "threads"),
        *("workers", "resume", "journal", "preset", "baselines", "overwrite", "quiet", "verbose", "progress"),
        *("also", "also_examples", "max_skipped", "diverged_at", "diverged_window", "trust_remote_code", "dry_run"),
        *("micro_batch", "points", "compile", "ranks", "rank_timeout", "compare_every", "report_to"),
    }
)
_WATCHING = ("eval", "log", "checkpoint", "save")

# What is trained: compared over all tasks, as one label is to mean the same in all of them.
_TRAINED = ("objective", "quantize", "group", "fake_quantize", "smoothing", "adapter", "trained")

# Defaults of options that switch something on; None is what a configuration leaves out.
_DEFAULTS: Mapping[str, object] = {
    "objective": "task",
    "adapter": None,
    "quantize": None,
    "group": 32,
    "fake_quantize": None,
    "smoothing": 0.75,
    "trained": [],
    "rates": [],
    "rule": "auto",
    "schedule": "constant",
    "warmup": 0,
    "weight_decay": 0.0,
    "gradient_checkpointing": False,
    "clip": None,
    "anchor_examples": None,
    "data": None,
    "bos": None,
    "patience": None,
    "select": "best",
    "dtype": "float32",
    "engine": "auto",
    "rows": "all",
    "rounding": "nearest",
}
# What a configuration without the option meant, where that was not today's default.
_MEANT: Mapping[str, object] = {"select": "last"}


def label(frame: pd.DataFrame, within: Sequence[str], settings: Sequence[str]) -> pd.DataFrame:
    """Add the columns `label` and `setting`, all settings that differ between rows of the method.

    Within each combination of the columns `within` labels are different where method, settings or provenance are.
    """
    values = {key: [_said(key, value) for value in frame[key]] for key in settings if key in frame.columns}
    places = list(zip(*(frame[column].map(_key) for column in within), strict=True)) or [()] * len(frame)
    rows = pd.DataFrame(
        {"place": places, "method": frame["method"].map(str), "provenance": frame["provenance"].map(_word)},
        index=frame.index,
        dtype=object,
    )
    for key, said in values.items():
        rows[f"={key}"] = pd.Series(said, index=frame.index, dtype=object)
    everywhere = {key for key in values if key in _TRAINED}
    names: dict[Any, tuple[str, str]] = {}
    for _, cell in rows.groupby("place", sort=False):
        names |= _cell(cell, rows, list(values), everywhere)
    pairs = [names[tuple(row)] for row in rows.itertuples(index=False)]
    columns = {name: [each[number] for each in pairs] for number, name in enumerate(("label", "setting"))}
    return frame.assign(**{name: pd.Series(texts, frame.index, dtype=object) for name, texts in columns.items()})


def labelled(frame: pd.DataFrame, kind: str, within: Sequence[str], settings: Sequence[str] = ()) -> pd.DataFrame:
    """Rows of a kind with labels: as they are if they have them, else completed by `tidy` and labelled by `label`."""
    return frame if "label" in frame.columns else label(tidy(frame, kind), within, settings)


def _cell(cell: pd.DataFrame, rows: pd.DataFrame, keys: list[str], everywhere: set[str]) -> dict[Any, tuple[str, str]]:
    """Label and setting of each distinct row of one cell."""
    distinct = cell.drop_duplicates()
    texts: dict[Any, tuple[str, str, str]] = {}
    for method, mine in distinct.groupby("method", sort=False):
        same = rows[rows["method"] == method]
        differing = [key for key in keys if (same if key in everywhere else mine)[f"={key}"].nunique() > 1]
        fewest = _fewest(mine, differing, everywhere)
        for row in mine.itertuples(index=False):
            said = dict(zip(keys, tuple(row)[3:], strict=True))
            setting = " ".join(filter(None, (_spelt(key, said[key]) for key in differing)))
            short = [part for part in (_spelt(key, said[key]) for key in fewest) if part]
            texts[tuple(row)] = (method, " ".join(short), setting)
    return _fitted(texts)


def _fewest(mine: pd.DataFrame, differing: list[str], everywhere: set[str]) -> list[str]:
    """The fewest of the settings that tell these rows apart as well as all do; what is trained is always said."""
    always = [key for key in differing if key in everywhere]
    free = [key for key in differing if key not in everywhere]
    wanted = _groups(mine, differing)
    for size in range(len(free) + 1 if len(free) <= 12 else 0):
        for chosen in combinations(free, size):
            if _groups(mine, [*always, *chosen]) == wanted:
                return [*always, *chosen]
    return differing


def _groups(mine: pd.DataFrame, keys: list[str]) -> int:
    return len(mine[[f"={key}" for key in keys]].drop_duplicates()) if keys else 1


def _fitted(texts: Mapping[Any, tuple[str, str, str]]) -> dict[Any, tuple[str, str]]:
    """Labels of at most LONGEST characters, numbered where settings that do not fit would make two the same."""
    provenances: dict[tuple[str, str], set[str]] = {}
    for row, (method, short, _) in texts.items():
        provenances.setdefault((method, short), set()).add(row[2])
    made: dict[Any, tuple[str, str]] = {}
    taken: dict[str, tuple[str, str, str]] = {}
    for row, (method, short, setting) in texts.items():
        end = f" ({row[2]})" if len(provenances[method, short]) > 1 and row[2] != "live" else ""
        meaning = (method, short, end)
        for number in count(1):
            named = _joined(method_name(method), short, (f" #{number}" if number > 1 else "") + end)
            if taken.setdefault(named, meaning) == meaning:
                break
        made[row] = (named, setting)
    return made


def _joined(name: str, short: str, end: str) -> str:
    whole = f"{name} {short}".strip()
    if len(whole) + len(end) <= LONGEST:
        return whole + end
    kept = whole[: LONGEST - len(end) - len(_ELLIPSIS)]
    cut = kept.rfind(" ")
    return (kept[:cut] if cut > 0 else kept).rstrip() + _ELLIPSIS + end


def with_settings(frame: pd.DataFrame, results: Results) -> tuple[pd.DataFrame, list[str]]:
    """Join rows with their run's configuration as far as it varies; also return the names of what varies."""
    used = {run.name: run.config for run in results.runs if run.name in set(frame["run"])}
    keys = dict.fromkeys(key for config in used.values() for key in config)
    meant = {key: {name: meaning(config, key) for name, config in used.items()} for key in keys}
    settings = [
        key
        for key, values in meant.items()
        if key not in _INCIDENTAL and not key.startswith(_WATCHING)
        if len({_said(key, value) for value in values.values()}) > 1
    ]
    joined = {key: frame["run"].map(meant[key]) for key in settings if key not in frame.columns}
    if "lr" in meant and "lr" not in frame.columns:
        joined["lr"] = frame["run"].map(meant["lr"])
    return frame.assign(**{key: column.astype(object) for key, column in joined.items()}), settings


def meaning(config: Mapping[str, Any], key: str) -> Any:
    """The value that a run's configuration has for an option, also where it leaves the option out."""
    value = config.get(key, _MEANT.get(key, _DEFAULTS.get(key)))
    return _DEFAULTS[key] if key == "rule" and value == methods.rule_name(str(config.get("method", ""))) else value


def _said(key: str, value: Any) -> str:
    """A value in words; the empty string where there is nothing to say, as for a default."""
    if value is None or (isinstance(value, float) and pd.isna(value)) or value == "":
        return ""
    if key in _DEFAULTS and (value == _DEFAULTS[key] or (isinstance(value, list | tuple) and not value)):
        return ""
    if isinstance(value, list | tuple):
        return ",".join(text.setting(one) for one in value)
    return PurePath(value).name if key == "data" and isinstance(value, str) else text.setting(value)


def _spelt(key: str, said: str) -> str:
    switches = {"": "", "True": key, "False": f"no {key}"}
    return switches.get(said, f"{key}={said}")


def _word(provenance: Any) -> str:
    """The first word of where rows come from."""
    return next(iter(provenance.split()), "live") if isinstance(provenance, str) else "live"


def _key(value: Any) -> Any:
    """NaN as None, so that it is the same place everywhere."""
    return None if isinstance(value, float) and pd.isna(value) else value
