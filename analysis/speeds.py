"""Rows of the bench and the profile -> one row for each job on one machine, repetitions and runs pooled."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from analysis.machines import HERE, placed, pooled
from analysis.rows import Results

PLACE = [*HERE, "size", "dtype", "batch", "tokens", "threads", "device"]
PUBLISHED, LIMIT = "published", "limit"
FORWARD, STEP = "forward", "step"
FULL = "float32"
PARTS = ("draw", "apply", "attention", "MLP", "embeddings and logits", "Python and the rest")
_ENGINE = ["engine", "law", "rows"]
SLOWED = 1.25  # times the bench's step from which a profile was measured on a busier machine


def steps(results: Results) -> pd.DataFrame:
    """Jobs of "bench-step", slowest first within a place; ratios are medians over rows, each of its own call.

    `lowest` and `highest` are the extremes of `of_limit` over rows; `of_full` is how many times faster the job is than
    the published loop in float32 of the same machine, batch and tokens (NaN in float32 itself).
    """
    frame = placed("bench-step", results)
    keys = [*PLACE[2:], "job", *_ENGINE]
    jobs = pooled(frame, keys, ["of_limit", "speedup"], ["seconds"])
    groups = [same for _, same in frame.groupby([*HERE, *keys], sort=False, dropna=False)]
    for bar in ("bar", "bar_speedup"):
        jobs[bar] = [_last(same[bar]) for same in groups]
    jobs["lowest"] = [same["of_limit"].min() for same in groups]
    jobs["highest"] = [same["of_limit"].max() for same in groups]
    jobs["of_full"] = [_of_full(row, jobs) for _, row in jobs.iterrows()]
    jobs["place"] = jobs.groupby(PLACE, sort=False, dropna=False).ngroup()
    return jobs.sort_values(["place", "seconds"], ascending=[True, False], kind="stable", ignore_index=True)


def places(frame: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """The jobs of each place."""
    for _, rows in frame.groupby("place", sort=False):
        yield rows


def verdicts(frame: pd.DataFrame) -> list[tuple[pd.Series, str, bool]]:
    """Each bar of each job whose ratio is known: the row, the bar in words, and whether it holds."""
    bars = []
    for _, row in frame.iterrows():
        if not math.isnan(row["bar"] + row["of_limit"]):
            bars.append((row, f"at most {row['bar']:g} of the limit", bool(row["of_limit"] <= row["bar"])))
        if "bar_speedup" in row and not math.isnan(row["bar_speedup"] + row["speedup"]):
            words = f"at least {row['bar_speedup']:g} times faster"
            bars.append((row, words, bool(row["speedup"] >= row["bar_speedup"])))
    return bars


def memory(results: Results) -> pd.DataFrame:
    """Jobs of "bench-memory"; `held` is the share of rows that stayed below their limit."""
    frame = placed("bench-memory", results)
    values = ["peak_mb", "model_mb", "largest_mb", "of_inference", "limit_mb"]
    jobs = pooled(frame, ["size", "dtype", "job"], values)
    groups = frame.groupby([*HERE, "size", "dtype", "job"], sort=False, dropna=False)
    return jobs.assign(held=[same["held"].mean() for _, same in groups])


def sweeps(results: Results) -> pd.DataFrame:
    """Laws and paths of "bench-sweep"."""
    values = ["numbers_per_second", "copied_per_second", "of_copy"]
    return pooled(placed("bench-sweep", results), ["law", "path", "device", "dtype"], values)


def adapters(results: Results) -> pd.DataFrame:
    """Adapters of "bench-adapter", with their bar."""
    frame, keys = placed("bench-adapter", results), ["size", "adapter", "trainable"]
    jobs = pooled(frame, keys, ["of_limit"], ["seconds", "limit_seconds"])
    groups = frame.groupby([*HERE, *keys], sort=False, dropna=False)
    return jobs.assign(bar=[_last(same["bar"]) for _, same in groups])


def scaling(results: Results) -> pd.DataFrame:
    """Points of "bench-scaling", small models first."""
    frame = placed("bench-scaling", results)
    points = pooled(frame, ["size", "parameters", "batch", "tokens", "job"], [], ["seconds"])
    order = [*HERE, "parameters", "batch", "tokens", "job"]
    return points.sort_values(order, kind="stable", ignore_index=True)


def fits(results: Results) -> pd.DataFrame:
    """Exponents of "bench-scaling-fit"."""
    values = ["parameters_exponent", "tokens_exponent", "batch_exponent", "residual"]
    return pooled(placed("bench-scaling-fit", results), ["job"], values)


def profiles(results: Results) -> pd.DataFrame:
    """Parts of "profile" with their share of the parts' sum, in the order of PARTS; `name` is the configuration's.

    `of_bench` is the sum over the time of the same step in "bench-step" on the same machine; NaN without one.
    """
    keys = ["size", "dtype", "batch", "tokens", *_ENGINE]
    spent = pooled(placed("profile", results), [*keys, "part"], ["seconds"])
    whole = spent.groupby([*HERE, *keys], sort=False, dropna=False)["seconds"]
    spent["share"] = spent["seconds"] / whole.transform("sum")
    spent["step"] = whole.ngroup()
    benched = steps(results).drop_duplicates([*HERE, *keys], keep="last").set_index([*HERE, *keys])["seconds"]
    alike = pd.MultiIndex.from_frame(spent[[*HERE, *keys]])
    spent["of_bench"] = whole.transform("sum") / benched.reindex(alike).to_numpy(float)
    spent["name"] = [_engine_name(row) for _, row in spent.iterrows()]
    spent["place"] = spent.groupby([*HERE, *keys[:4]], sort=False, dropna=False).ngroup()
    rank = {part: number for number, part in enumerate(parts(spent["part"]))}
    spent["rank"] = spent["part"].map(rank)
    return spent.sort_values(["place", "step", "rank"], kind="stable", ignore_index=True)


def parts(names: Iterable[str]) -> list[str]:
    """The parts of a step in their usual order, unknown ones last."""
    known = dict.fromkeys(names)
    return [*(part for part in PARTS if part in known), *(part for part in known if part not in PARTS)]


def motion(results: Results) -> pd.DataFrame:
    """Steps of "motion"; `name` is the rounding, with its engine where a place has it with several.

    `rate` is the learning rate, or "schedule" where it changes from step to step.
    """
    frame = placed("motion", results)
    frame["rounding"] = frame["rounding"].replace("walk, nearest", "in-place")  # its name in older rows
    keys = ["model", "dtype", "engine", "rounding"]
    frame["rate"] = ""
    for _, same in frame.groupby(["run", *keys], sort=False):
        frame.loc[same.index, "rate"] = _rates(same)
    moves = pooled(frame, [*keys, "rate", "step"], ["moved", "cosine", "length"])
    keys_of_place = [*HERE, "model", "dtype", "rate"]
    moves["place"] = moves.groupby(keys_of_place, sort=False, dropna=False).ngroup()
    engines = moves.groupby(["place", "rounding"])["engine"].transform("nunique")
    shown = (engines > 1) & (moves["engine"] != "")
    moves["name"] = moves["rounding"].where(~shown, moves["rounding"] + ", " + moves["engine"])
    return moves.sort_values(["place", "step"], kind="stable", ignore_index=True)


def _rates(same: pd.DataFrame) -> pd.Series:
    """A schedule has one rate a step but several over steps."""
    rates = same["lr"].map(lambda lr: "" if math.isnan(lr) else f"{lr:g}")
    scheduled = rates.nunique() > 1 and same.assign(rate=rates).groupby("step")["rate"].nunique().max() == 1
    return rates.mask(pd.Series(scheduled, index=rates.index), "schedule")


def _engine_name(row: Any) -> str:
    touched = "touched rows" if row["rows"] == "touched" else row["rows"] and f"{row['rows']} rows"
    return ", ".join(word for word in (row["engine"], row["law"], touched) if word)


def _of_full(row: pd.Series, jobs: pd.DataFrame) -> float:
    """The speed-up over the published loop in float32, all else equal."""
    if row["dtype"] == FULL:
        return math.nan
    same = (jobs["dtype"] == FULL) & (jobs["job"] == PUBLISHED)
    for key in PLACE:
        same &= (jobs[key] == row[key]) | (jobs[key].isna() & pd.isna(row[key])) if key != "dtype" else True
    return float(jobs.loc[same, "seconds"].iloc[0] / row["seconds"]) if same.any() else math.nan


def _last(values: pd.Series) -> float:
    known = values.dropna()
    return float(known.iloc[-1]) if len(known) else math.nan
