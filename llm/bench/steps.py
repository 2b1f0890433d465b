"""The time of one step: the published loop, each engine, and the limit of two bare forwards."""

import statistics
from collections.abc import Callable, Sequence

import torch

from llm.bench.published import Published
from llm.bench.setting import ENGINES, BenchSetting, stepper
from zobench import ModuleSpace, derive, methods
from zobench.run.records import Row
from zobench.run.timing import alternating

FASTEST = "in-forward, paired"
BARS: dict[tuple[str | None, bool | None], tuple[float | None, float | None]] = {
    ("gaussian", True): (1.30, 4.0),
    ("rademacher", True): (1.10, 4.5),
    ("rademacher", False): (None, 4.5),
}
"""(law, touched rows) -> at most this multiple of the limit, at least this much faster than the published loop."""


def measure(here: BenchSetting, laws: Sequence[str], repetitions: int) -> list[Row]:
    """Return a row a job; the jobs take turns.

    Raises:
        RuntimeError: the engines and the published loop do not compute the same loss.
    """
    published = Published(here)
    require_equal_losses(here, published)
    names = {
        (engine, law, touched): f"{engine}, {law}" + ", touched rows" * touched
        for law in laws
        for engine in ENGINES
        for touched in ((False,) if engine == "plain" else (False, True))
    }
    jobs: dict[str, Callable[[], object]] = {"published": published.step, "limit": here.limit}
    jobs |= {name: stepper(here, *job) for job, name in names.items()}
    here.limit()  # what the first call does once is not counted
    seconds = alternating(jobs, repetitions)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    known = {name: job for job, name in names.items()}
    rows = []
    for name, times in seconds.items():
        engine, law, touched = known.get(name, (None, None, None))
        bars = BARS.get((law, touched), (None, None)) if engine == FASTEST else (None, None)
        rows.append({
            "kind": "bench-step", **here.about, "job": name, "law": law, "engine": engine,
            "rows": None if touched is None else "touched" if touched else "all", "seconds": times,
            "of_limit": middle[name] / middle["limit"], "speedup": middle["published"] / middle[name],
            "bar": bars[0], "bar_speedup": bars[1],
        })  # fmt: skip
    return rows


def require_equal_losses(here: BenchSetting, published: Published) -> None:
    """Compare the losses of both at one perturbed point.

    Raises:
        RuntimeError: they differ by more than 1e-4 of their size (2e-2 in 16 bits).
    """
    space = ModuleSpace(here.model)
    plan = methods.make("mezo").ask(derive("bench", "equal"), ())
    ours = float(space.losses(here.loss, plan)[0, -1])
    with torch.no_grad():
        theirs = float(published.loss())  # the module is left at the last point
    space.settle_()
    tolerance = 1e-4 if here.dtype == "float32" else 2e-2
    if abs(ours - theirs) > tolerance * abs(theirs):
        raise RuntimeError(f"losses differ at one point: {ours!r} here, {theirs!r} in the published loop")


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [f"{'step':42}{'seconds':>9}{'of the limit':>14}{'bar':>6}{'faster than published':>23}{'bar':>6}"]
    for row in rows:
        middle, bar, least = statistics.median(row["seconds"]), row["bar"] or "", row["bar_speedup"] or ""
        lines.append(f"{row['job']:42}{middle:9.3f}{row['of_limit']:14.2f}{bar:>6}{row['speedup']:23.2f}{least:>6}")
    return "\n".join(lines)
