"""The time of one step: the published loop, each engine, and the limit of two bare forwards."""

import statistics
from collections.abc import Callable, Mapping, Sequence

import torch

from llm.bench.published import Published
from llm.bench.setting import ENGINES, BenchSetting, stepper, waited
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


Labels = tuple[str | None, str | None, bool | None]
"""Engine, law, and whether only touched rows are perturbed; nothing of the published loop and of the limit."""


def measure(
    here: BenchSetting, laws: Sequence[str], repetitions: int, engines: Sequence[str] = tuple(ENGINES)
) -> list[Row]:
    """Return a row a job; the jobs take turns.

    Raises:
        RuntimeError: the engines and the published loop do not compute the same loss.
    """
    labels, jobs = jobs_of(here, laws, engines)
    here.limit()  # what the first call does once is not counted
    return rows_of(here, labels, alternating(jobs, repetitions))


def jobs_of(
    here: BenchSetting, laws: Sequence[str], engines: Sequence[str], touched: Sequence[bool] = (False, True)
) -> tuple[dict[str, Labels], dict[str, Callable[[], None]]]:
    """Return the labels and the work of each job by name; errors as `measure`. Work ends when the device has done it.

    The plain engine perturbs all rows: it walks over all of them anyway.
    """
    published = Published(here)
    require_equal_losses(here, published)
    labels: dict[str, Labels] = {"published": (None, None, None), "limit": (None, None, None)}
    jobs: dict[str, Callable[[], object]] = {"published": published.step, "limit": here.limit}
    for law in laws:
        for engine in engines:
            for restricted in (False,) if engine == "plain" else touched:
                name = f"{engine}, {law}" + ", touched rows" * restricted
                labels[name], jobs[name] = (engine, law, restricted), stepper(here, engine, law, restricted)
    return labels, {name: waited(here.device, job) for name, job in jobs.items()}


def rows_of(here: BenchSetting, labels: Mapping[str, Labels], seconds: Mapping[str, list[float]]) -> list[Row]:
    """Return the row of each job that was timed."""
    middle, rows = {name: statistics.median(times) for name, times in seconds.items()}, []
    for name, times in seconds.items():
        engine, law, touched = labels[name]
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
