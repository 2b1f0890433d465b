"""The report on speed: a step against the published loop and against two bare forwards, and what it holds."""

import math

import pandas as pd

from analysis import machines, speeds, text
from analysis.figures.scaling import scaling_figure
from analysis.figures.speed import speed_figure
from analysis.rows import Results
from analysis.sections.section import Illustration, Section, missing
from analysis.tables.speed import adapters_table, fits_table, memory_table, scaling_table, steps_table, sweeps_table

TITLE = "Time and memory of one step"
CAPTION = (
    "Bars show the median seconds of one two-point step, with quartiles of the repetitions: first the published "
    "loop of four passes over the weights, then each engine, law of directions and choice of rows. The dashed "
    "line, with its quartiles in grey, shows two bare forwards of the same loss. A two-point step cannot be faster "
    "than this limit unless it runs the two forwards side by side. The numbers are the median divided by the "
    "limit."
)
SCALING = (
    "Dashed lines show the median seconds of a bare forward, and solid lines those of a step, on logarithmic axes "
    "with quartiles of the repetitions. Where other settings vary, each panel shows the value with most points and "
    "names it."
)
ALT = (
    "Median seconds of a step as bars, for the published loop and for each engine, law and choice of rows, with a "
    "line at the time of two forwards."
)
ALT_SCALING = (
    "Seconds of a forward and of a step on logarithmic axes, with a line for each size of model: against tokens "
    "and, where these vary, against examples and parameters."
)


def section(results: Results) -> Section:
    """Steps, memory, sweeps, adapters and growth, each as far as there are rows."""
    steps, memory, sweeps = speeds.steps(results), speeds.memory(results), speeds.sweeps(results)
    adapters, points, fits = speeds.adapters(results), speeds.scaling(results), speeds.fits(results)
    frames = [steps, memory, sweeps, adapters, points, fits]
    if all(frame.empty for frame in frames):
        return missing("speed", TITLE, "bench-step")
    shown = []
    timed = steps[steps["seconds"].notna()]
    if (timed["job"] != speeds.LIMIT).any():
        shown.append(Illustration("speed", speed_figure(timed), CAPTION, ALT))
    if len(points):
        shown.append(Illustration("scaling", scaling_figure(points), SCALING, ALT_SCALING))
    makers = (steps_table, memory_table, sweeps_table, adapters_table, scaling_table, fits_table)
    tables = [make(frame) for make, frame in zip(makers, frames, strict=True) if len(frame)]
    lines = [machines.sentence(frames, results), *_steps(steps), *_bars(steps, "step"), *_memory(memory)]
    lines += [*_sweeps(sweeps), *_bars(adapters, "adapter"), *_fits(fits)]
    return Section("speed", TITLE, lines, shown, tables)


def _steps(steps: pd.DataFrame) -> list[str]:
    """For each place: the limit and the published loop, then the fastest job of each law."""
    return [_place(rows) for rows in speeds.places(steps)]


def _place(rows: pd.DataFrame) -> str:
    jobs = {row["job"]: row for _, row in rows.iterrows()}
    parts = []
    if speeds.LIMIT in jobs:
        parts.append(f"two bare forwards take {text.number(jobs[speeds.LIMIT]['seconds'])} s")
    if speeds.PUBLISHED in jobs:
        parts.append(f"the published loop {_job(jobs[speeds.PUBLISHED])}")
    own = rows[rows["law"] != ""]
    for law, same in own.groupby("law", sort=False):
        best = same.iloc[-1]
        parts.append(f"the fastest {law} step, {best['job']}, {_job(best)}")
    return f"{machines.where(rows.iloc[0])}: {'; '.join(parts)}."


def _job(row: pd.Series) -> str:
    words = [f"takes {text.number(row['seconds'])} s"]
    if not math.isnan(row["of_limit"]):
        words.append(f"{text.fixed(row['of_limit'])} times the limit")
    if row["job"] != speeds.PUBLISHED and not math.isnan(row["speedup"]):
        words.append(f"{text.fixed(row['speedup'])} times faster than the published loop")
    if not math.isnan(row["of_full"]):
        words.append(f"{text.fixed(row['of_full'])} times faster than the published loop in float32")
    return ", ".join(words)


def _bars(frame: pd.DataFrame, what: str) -> list[str]:
    """The number of bars that hold, and the margin by which each other bar is missed."""
    verdicts = speeds.verdicts(frame)
    if not verdicts:
        return []
    name = {"step": "job", "adapter": "adapter"}[what]
    lost = [
        f"{row[name]} at {machines.where(row)} ({words}; it is {_reached(row, words)})"
        for row, words, held in verdicts
        if not held
    ]
    held = len(verdicts) - len(lost)
    sentence = (
        f"{held} of {text.count(len(verdicts), 'bar')} on the time of {_one(what)} {'holds' if held == 1 else 'hold'}"
    )
    return [f"{sentence}; missed: {text.listed(lost)}." if lost else f"{sentence}."]


def _one(what: str) -> str:
    return {"step": "a step", "adapter": "an adapter's step"}[what]


def _reached(row: pd.Series, words: str) -> str:
    return text.fixed(row["of_limit"] if words.startswith("at most") else row["speedup"], 3)


def _memory(memory: pd.DataFrame) -> list[str]:
    known = memory[memory["held"].notna() & (memory["job"] != "inference")]
    if known.empty:
        return []
    worst = known.loc[known["of_inference"].idxmax()] if known["of_inference"].notna().any() else None
    sentence = f"{int((known['held'] == 1).sum())} of {text.count(len(known), 'step')} stay below the memory allowed"
    if worst is not None:
        most = text.fixed(worst["of_inference"], 3)
        sentence += (
            f"; the largest peak is {most} of that of inference ({worst['job']}, {worst['size']}, {worst['dtype']})"
        )
    return [sentence + "."]


def _sweeps(sweeps: pd.DataFrame) -> list[str]:
    lines = []
    for (*_, path), rows in sweeps.groupby([*machines.HERE, "path"], sort=False):
        parts = [
            f"{row['law']} {text.number(row['numbers_per_second'] / 1e9)}·10⁹ a second"
            + ("" if math.isnan(row["of_copy"]) else f" ({text.fixed(row['of_copy'])} of a copy)")
            for _, row in rows.iterrows()
        ]
        lines.append(f"Numbers drawn and applied, {path} path{_there(rows.iloc[0])}: {'; '.join(parts)}.")
    return lines


def _fits(fits: pd.DataFrame) -> list[str]:
    parts = [
        f"of a {row['job']}{_there(row)} as parameters^{text.fixed(row['parameters_exponent'])}, "
        f"tokens^{text.fixed(row['tokens_exponent'])}, batch^{text.fixed(row['batch_exponent'])}"
        for _, row in fits.iterrows()
    ]
    return [f"Time grows, {'; '.join(parts)}."] if parts else []


def _there(row: pd.Series) -> str:
    machine = machines.where(row[machines.HERE])
    return f" ({machine})" if machine else ""
