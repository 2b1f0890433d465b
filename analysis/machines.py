"""The machines on which rows were measured; rows of one machine and one configuration may be pooled."""

from collections.abc import Iterator, Sequence
from string import ascii_uppercase
from typing import Any

import numpy as np
import pandas as pd

from analysis import text
from analysis.kinds import KINDS
from analysis.labels import LONGEST, meaning
from analysis.rows import ReadError, Results, Row, RunRows

HERE = ["machine", "setting"]
MEASURED = frozenset(kind for kind in KINDS if kind.startswith("bench-")) | {"profile", "motion"}
# What selects measurements, each of which names itself in its row, and what only says how often or where to.
_SELECTING = frozenset(
    {
        *("command", "out", "name", "folder", "seed", "seeds", "repetitions", "steps", "resume", "overwrite"),
        *("size", "sizes", "laws", "law", "engine", "engines", "jobs", "parts", "paths", "adapters", "lengths"),
        *("batches", "dtypes", "roundings", "rounding", "suites", "only", "quiet", "verbose", "progress"),
        *("rates", "ways"),
    }
)


def described(environment: Row) -> str:
    """Processor, accelerator, cores and torch's version: what two timings must share to be compared."""
    parts = [str(environment[key]) for key in ("cpu", "gpu") if environment.get(key)]
    parts += [f"{environment['cores']} cores"] if environment.get("cores") else []
    parts += [f"torch {environment['torch']}"] if environment.get("torch") else []
    return ", ".join(parts) or "unknown machine"


def letters(results: Results) -> dict[str, str]:
    """Each machine that measured anything, with the letter it goes by; no letter where there is but one."""
    machines = dict.fromkeys(described(one) for run in results.runs for kind, one in _walk(run) if kind in MEASURED)
    return dict(zip(machines, ascii_uppercase, strict=False)) if len(machines) > 1 else dict.fromkeys(machines, "")


def placed(kind: str, results: Results) -> pd.DataFrame:
    """Rows of one kind with their `machine` (its letter) and `setting` (what differs in their configurations).

    A folder that another machine continued says so by a row of kind "environment": what follows is that machine's.
    """
    frame, names = results.of(kind), letters(results)
    environments = [environment for run in results.runs for one, environment in _walk(run) if one == kind]
    machines = [names.get(described(one), described(one)) for one in environments]
    commits = [str(one.get("commit") or "") for one in environments]
    frame = frame.assign(machine=machines, commit=commits, setting=frame["run"].map(_settings(frame, results)))
    worded = [*KINDS[kind].text, "setting"]
    return frame.assign(**{column: frame[column].where(frame[column].notna(), "") for column in worded})


def sentence(frames: Sequence[pd.DataFrame], results: Results) -> str:
    """Which machines measured these frames, as `placed` made them."""
    used = {letter for frame in frames for letter in frame["machine"]}
    known = {machine: letter for machine, letter in letters(results).items() if letter in used}
    if list(known.values()) == [""]:
        return f"Measured on {next(iter(known))}."
    return "; ".join(f"Machine {letter}: {machine}" for machine, letter in known.items()) + "."


def pooled(frame: pd.DataFrame, keys: list[str], values: Sequence[str], lists: Sequence[str] = ()) -> pd.DataFrame:
    """One row for each combination of machine, setting and `keys`, in order of appearance.

    values become medians over rows; lists of repetitions are joined over rows and become `name` (their median),
    `name_low` and `name_high` (quartiles) and `name_count`. `calls` is the number of rows pooled, `commits` that of the
    versions of the code that wrote them.
    """
    made = []
    for values_of_keys, same in frame.groupby([*HERE, *keys], sort=False, dropna=False):
        row: dict[str, Any] = dict(zip([*HERE, *keys], values_of_keys, strict=True))
        row |= {value: same[value].median() for value in values}
        row |= {"calls": len(same), "commits": same["commit"].nunique()}
        for name in lists:
            sample = np.concatenate(
                [_numbers(run, name, cell) for run, cell in zip(same["run"], same[name], strict=True)]
            )
            quartiles = np.quantile(sample, (0.25, 0.5, 0.75)) if len(sample) else (np.nan,) * 3
            row |= dict(zip((f"{name}_low", name, f"{name}_high"), quartiles, strict=True))
            row[f"{name}_count"] = len(sample)
        made.append(row)
    ends = [f"{name}{end}" for name in lists for end in ("_low", "", "_high", "_count")]
    return pd.DataFrame(made, columns=[*HERE, *keys, *values, "calls", "commits", *ends])


def where(row: Any) -> str:
    """`opt-125m, float32, batch 16 × 48 tokens, 2 threads, machine A`, as far as the row says it."""
    row = dict(row)
    words = [str(row[key]) for key in ("size", "model", "dtype") if row.get(key)]
    if "batch" in row and "tokens" in row:
        words.append(f"batch {row['batch']:g} × {row['tokens']:g} tokens")
    if not pd.isna(row.get("threads", np.nan)):
        words.append(text.count(int(row["threads"]), "thread"))
    words += [row["device"]] if isinstance(row.get("device"), str) and row["device"] else []
    words += [str(row["setting"])] if row["setting"] else []
    return ", ".join([*words, *([f"machine {row['machine']}"] if row["machine"] else [])])


def calls(row: Any) -> str:
    """The number of pooled rows, and the number of commits if there are several."""
    return str(row["calls"]) + (f" of {row['commits']} commits" if row["commits"] > 1 else "")


def _walk(run: RunRows) -> Iterator[tuple[str, Row]]:
    """The kind of each row of a run and the environment that wrote it."""
    environment = run.environment
    for row in run.rows:
        environment = row if row["kind"] == "environment" else environment
        yield row["kind"], environment


def _settings(frame: pd.DataFrame, results: Results) -> dict[str, str]:
    """For each run the configuration in which it differs from runs of the same model and type of numbers.

    Only what the rows themselves do not carry, and a setting that was left out only if the other run says it.
    """
    configs = {run.name: run.config for run in results.runs if run.name in set(frame["run"])}
    own = [column for column in ("size", "model", "dtype") if column in frame.columns]
    places = {name: set(map(tuple, rows[own].to_numpy(object))) for name, rows in frame.groupby("run", sort=False)}
    settings = {}
    for name, config in configs.items():
        others = [other for rival, other in configs.items() if places[rival] & places[name]]
        keys = [
            key
            for key in config
            if key not in _SELECTING and key not in frame.columns.difference(["provenance"])
            if any(meaning(other, key) != config[key] for other in others)
        ]
        settings[name] = ", ".join(f"{key} {text.setting(config[key])}" for key in keys)
    return _shortened(settings)


def _shortened(settings: dict[str, str]) -> dict[str, str]:
    """Settings of at most LONGEST characters, long ones cut and numbered."""
    cut = [words for words in dict.fromkeys(settings.values()) if len(words) > LONGEST]
    short = {words: f"{words[: LONGEST - 6].rstrip(', ')} … #{number}" for number, words in enumerate(cut, start=1)}
    return {name: short.get(words, words) for name, words in settings.items()}


def _numbers(run: str, name: str, cell: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        sample = np.atleast_1d(np.asarray(cell, dtype=float))
    except (TypeError, ValueError):
        raise ReadError(f"run {run!r}: a row has {name!r} = {cell!r}, not a list of numbers") from None
    finite: np.ndarray[Any, np.dtype[np.float64]] = sample[np.isfinite(sample)]
    return finite
