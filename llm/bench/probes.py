"""Many probes in one forward: all points of low-rank directions on the batched engine, against bare forwards."""

import statistics
from collections.abc import Callable, Sequence

import torch

from llm.bench.setting import BenchSetting, setting, waited
from llm.steppers.engines import batched_space
from zobench import LowRank, derive, methods, query
from zobench.run.records import Row
from zobench.run.timing import alternating

BARS = {(1, 16): 0.45, (4, 32): 0.85}
"""(examples, tokens) -> at most this share of as many bare forwards, for 16 points at opt-125m's size."""
PROBED = ("opt-125m", 16)


def cells(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Return minibatches (examples, tokens) that are written as "4x32".

    Raises:
        ValueError: one is written otherwise, has no example, or less than 2 tokens.
    """
    cells = []
    for text in texts:
        numbers = text.split("x")
        if len(numbers) != 2 or not all(map(str.isdigit, numbers)) or int(numbers[0]) < 1 or int(numbers[1]) < 2:
            raise ValueError(f"{text!r} is no minibatch: give examples x tokens, such as 4x32")
        cells.append((int(numbers[0]), int(numbers[1])))
    return cells


def measure(
    size: str, dtype: str, minibatches: Sequence[tuple[int, int]], directions: int, repetitions: int
) -> list[Row]:
    """Return the rows of each minibatch."""
    return [
        row
        for batch, tokens in minibatches
        for row in rows_of(setting(size, dtype, batch, tokens), directions, repetitions)
    ]


def rows_of(here: BenchSetting, directions: int, repetitions: int) -> list[Row]:
    """Return a row for each job; the jobs take turns: "bare", one forward of the loss; "repeated", one forward of the
    minibatch as often as there are points; "points", the losses at all points; "step", these and the update.

    `of_bare` is the median time in those of as many bare forwards as there are points, `fastest_of_bare` the
    shortest in the shortest: on a shared machine it varies less.
    """
    points = 2 * directions
    jobs = {name: waited(here.device, job) for name, job in _jobs(here, directions).items()}
    for job in jobs.values():  # what the first call does once is not counted
        job()
    seconds = alternating(jobs, repetitions)
    bare, fastest = (points * of(seconds["bare"]) for of in (statistics.median, min))
    bar = BARS.get((len(here.batch), here.tokens)) if (here.size, points) == PROBED else None
    return [
        {
            "kind": "bench-probes", **here.about, "job": name, "points": points, "rank": 1, "seconds": times,
            "of_bare": statistics.median(times) * (points if name == "bare" else 1) / bare,
            "fastest_of_bare": min(times) * (points if name == "bare" else 1) / fastest,
            "bar": bar if name == "points" else None,
        }
        for name, times in seconds.items()
    ]  # fmt: skip


def _jobs(here: BenchSetting, directions: int) -> dict[str, Callable[[], object]]:
    estimator = methods.make("mezo", law=LowRank(1), n=directions)
    space, keys = batched_space(here.model), iter(range(10**9))

    def step() -> None:
        estimate = query(space, estimator, here.loss, derive("bench", "probes", next(keys)), ())
        space.step_(estimate.gradient, -1e-7)

    return {
        "bare": torch.inference_mode()(here.loss),
        "repeated": torch.inference_mode()(lambda: here.objective.losses(here.batch * (2 * directions))),
        "points": lambda: space.losses(here.loss, estimator.ask(derive("bench", "probes", next(keys)), ())),
        "step": step,
    }


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [f"{'probes':12}{'points':>8}{'job':>12}{'seconds':>10}{'of bare forwards':>18}{'fastest':>9}{'bar':>6}"]
    for row in rows:
        middle, bar, cell = statistics.median(row["seconds"]), row["bar"] or "", f"{row['batch']}x{row['tokens']}"
        lines.append(
            f"{cell:12}{row['points']:8}{row['job']:>12}{middle:10.3f}{row['of_bare']:18.3f}"
            f"{row['fastest_of_bare']:9.3f}{bar:>6}"
        )
    return "\n".join(lines)


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table of a page: median seconds and their share of as many bare forwards as there are
    points, in brackets the share of the fastest.
    """
    lines = [
        "| examples x tokens | a bare forward | repeated | points | step | goal of points |",
        "|---|---|---|---|---|---|",
    ]
    for cell in dict.fromkeys((row["batch"], row["tokens"]) for row in rows):
        of_cell = {row["job"]: row for row in rows if (row["batch"], row["tokens"]) == cell}
        bar, bare = of_cell["points"]["bar"], statistics.median(of_cell["bare"]["seconds"])
        shares = " | ".join(_share(of_cell[job]) for job in ("repeated", "points", "step"))
        reached = "reached" if bar and of_cell["points"]["of_bare"] <= bar else "missed"
        lines.append(f"| {cell[0]} x {cell[1]} | {bare:.3f} s | {shares} | {f'{bar}: {reached}' if bar else 'none'} |")
    return "\n".join(lines)


def _share(row: Row) -> str:
    return f"{statistics.median(row['seconds']):.2f} s, {row['of_bare']:.2f} ({row['fastest_of_bare']:.2f})"
