"""Speed in numbers: steps, memory, sweeps, adapters, and how time grows."""

from typing import Any

import pandas as pd

from analysis import speeds, text
from analysis.machines import HERE, calls
from analysis.tables.table import Table, table


def steps_table(steps: pd.DataFrame) -> Table:
    """Every job: its time, its ratios to the limit and to the published loop, and whether its bars hold."""
    rows = [
        _place(row)
        | {"job": row["job"], **_seconds(row, "s a step"), "of the limit": text.fixed(row["of_limit"], 3)}
        | {"between calls": _range(row), "allowed": _verdict(row["of_limit"], "≤", row["bar"])}
        | {"times faster than published": text.fixed(row["speedup"])}
        | {"demanded": _verdict(row["speedup"], "≥", row["bar_speedup"])}
        | {"than published in float32": text.fixed(row["of_full"]), "calls": calls(row)}
        for _, row in steps.iterrows()
    ]
    note = (
        "Published: the loop of four sweeps with new normals in each. Limit: two bare forwards of the same loss, "
        "nothing perturbed. Medians over alternating repetitions, with quartiles, of all calls with the same machine "
        "and configuration; ratios compare medians of one call, and are medians over calls."
    )
    return table(rows, "Time of one step", note)


def memory_table(memory: pd.DataFrame) -> Table:
    """Peak memory of each job against inference, and whether it stays below its limit."""
    rows = [
        _place(row)
        | {
            "job": row["job"],
            "peak, MB": _megabytes(row["peak_mb"]),
            "of inference": text.fixed(row["of_inference"], 3),
        }
        | {"limit, MB": _megabytes(row["limit_mb"]), "below it": _held(row)}
        | {"model, MB": _megabytes(row["model_mb"]), "largest layer, MB": _megabytes(row["largest_mb"])}
        | {"calls": calls(row)}
        for _, row in memory.iterrows()
    ]
    note = (
        "Peak memory of the job in a process of its own. Limit: 1.05 of the peak of inference with the same batch, "
        "plus the largest layer."
    )
    return table(rows, "Peak memory of one step", note)


def sweeps_table(sweeps: pd.DataFrame) -> Table:
    """The speed of drawing and applying each law's directions, against a copy of memory."""
    rows = [
        _place(row)
        | {"law": row["law"], "path": row["path"], "drawn and applied, 10⁹/s": _billions(row["numbers_per_second"])}
        | {"copied, 10⁹/s": _billions(row["copied_per_second"]), "of the copy": text.fixed(row["of_copy"], 3)}
        | {"calls": calls(row)}
        for _, row in sweeps.iterrows()
    ]
    note = "Numbers a second: drawn and added to weights, and copied from memory to memory."
    return table(rows, "Sweep speed", note)


def adapters_table(adapters: pd.DataFrame) -> Table:
    """The step of each adapter against two forwards."""
    rows = [
        _place(row)
        | {"adapter": row["adapter"], "trainable": _count(row["trainable"]), **_seconds(row, "s a step")}
        | {"two forwards, s": text.number(row["limit_seconds"]), "of two forwards": text.fixed(row["of_limit"], 3)}
        | {"allowed": _verdict(row["of_limit"], "≤", row["bar"]), "calls": calls(row)}
        for _, row in adapters.iterrows()
    ]
    note = "Ratios compare medians of one call, and are medians over calls."
    return table(rows, "LoRA and prefix tuning", note)


def fits_table(fits: pd.DataFrame) -> Table:
    """The fitted exponents of a step beside those of a bare forward."""
    rows = [
        _place(row)
        | {"job": row["job"]}
        | {name: text.fixed(row[f"{name}_exponent"], 3) for name in ("parameters", "tokens", "batch")}
        | {"residual": text.fixed(row["residual"], 3)}
        for _, row in fits.iterrows()
    ]
    note = "Seconds ~ parameters^a tokens^b batch^c, fitted in logarithms; residual: what the fit leaves of them."
    return table(rows, "Exponents of growth", note)


def scaling_table(points: pd.DataFrame) -> Table:
    """Every point: forward, step, and their ratio."""
    rows = []
    for _, same in points.groupby([*HERE, "size", "parameters", "batch", "tokens"], sort=False):
        first, seconds = same.iloc[0], dict(zip(same["job"], same["seconds"], strict=True))
        forward, step = seconds.get(speeds.FORWARD, float("nan")), seconds.get(speeds.STEP, float("nan"))
        rows.append(
            _place(first.drop("size"))
            | {"size": first["size"], "parameters": _count(first["parameters"])}
            | {"batch": f"{first['batch']:g}", "tokens": f"{first['tokens']:g}"}
            | {f"{job}, s": text.number(value) for job, value in seconds.items()}
            | {"step / forward": text.fixed(step / forward, 3)}
        )
    return table(rows, "Time against parameters, batch and tokens", "Medians over repetitions.", long=True)


def _place(row: pd.Series) -> dict[str, str]:
    """The columns that distinguish settings, as far as rows of this kind have them."""
    names = ("machine", "setting", "size", "dtype")
    setting = {name: str(row[name]) for name in names if name in row}
    if "dtype" in row and "batch" in row:
        setting |= {"batch × tokens": f"{row['batch']:g} × {row['tokens']:g}"}
    return setting | ({"threads": text.number(row["threads"])} if "threads" in row else {})


def _seconds(row: pd.Series, name: str) -> dict[str, str]:
    quartiles = f"{text.number(row['seconds_low'])} to {text.number(row['seconds_high'])}"
    return {name: text.number(row["seconds"]), "quartiles": quartiles, "repetitions": str(row["seconds_count"])}


def _range(row: pd.Series) -> str:
    return f"{text.fixed(row['lowest'], 3)} to {text.fixed(row['highest'], 3)}" if row["calls"] > 1 else ""


def _verdict(value: float, sign: str, bar: float) -> str:
    if pd.isna(bar) or pd.isna(value):
        return ""
    held = value <= bar if sign == "≤" else value >= bar
    return f"{sign} {bar:g}: {'held' if held else 'missed'}"


def _held(row: Any) -> str:
    if pd.isna(row["held"]):
        return ""
    if row["held"] in (0.0, 1.0):
        return "held" if row["held"] else "missed"
    return f"held in {100 * row['held']:.0f} % of calls"


def _megabytes(value: float) -> str:
    return text.NONE if pd.isna(value) else f"{value:,.0f}"


def _billions(value: float) -> str:
    return text.number(value / 1e9)


def _count(value: float) -> str:
    return text.NONE if pd.isna(value) else f"{value:,.0f}"
