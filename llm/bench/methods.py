"""The time of a step of each method beside two bare forwards and a step of mezo."""

import statistics
from collections.abc import Callable, Sequence

from llm.bench.setting import BenchSetting, waited
from llm.steppers.zeroth_order import Whole, ZerothOrderStepper
from zobench import derive, methods
from zobench.methods import Method
from zobench.naming import require_known
from zobench.run.records import Row
from zobench.run.timing import alternating

MEZO, LIMIT = "mezo", "limit"
MOST = 4
"""Directions of a step, at most: so many suffice every method, and a paper's 160 would time forwards alone."""
RATE = 1e-9
STEPS = 4
"""Steps in a row, as in a run, where a step may leave work to the pass of the next one; the last is settled."""
BARRED = frozenset({"lozo", "sparse-mezo", "blockwise", "adalezo"})
BAR = 1.15
"""At most this multiple of mezo's step for methods whose law is of low rank, a mask or a block."""


def chosen(names: Sequence[str]) -> list[Method]:
    """Return the rows of the table with these names, all where none is given.

    Raises:
        UnknownNameError: no such method.
    """
    rows = {row.name: row for row in methods.table()}
    for name in names:
        require_known(name, rows, "method")
    return [rows[name] for name in names or rows]


def measure(here: BenchSetting, names: Sequence[str], repetitions: int) -> list[Row]:
    """Return a row a method: STEPS of its steps take turns with as many of mezo and with two bare forwards. A method
    whose first step fails is a row with its reason.

    `seconds` and `evaluations` are those of a step, on average; `of_limit` is the median time of a step in those of as
    many bare forwards, `of_mezo` in those of mezo's step.
    """
    return [_row(here, method, repetitions) for method in chosen(names)]


def _row(here: BenchSetting, method: Method, repetitions: int) -> Row:
    told: Row = {"kind": "bench-method", **here.about, "method": method.name, **method.axes._asdict()}
    told |= {"held": method.memory, "bar": BAR if method.name in BARRED else None}
    try:
        stepper, mezo = _stepper(here, method), _stepper(here, chosen([MEZO])[0])
        jobs = {LIMIT: here.limit, MEZO: _steps(here, mezo), "own": _steps(here, stepper)}
        for job in jobs.values():  # what the first step does once, as drawing a frame, is not counted
            job()
        before = stepper.forward_passes
        seconds = alternating({name: waited(here.device, job) for name, job in jobs.items()}, repetitions)
    except Exception as error:
        return {**told, "status": "failed", "reason": f"{type(error).__name__}: {error}"}
    evaluations = (stepper.forward_passes - before) / repetitions / STEPS
    seconds["own"] = [time / STEPS for time in seconds["own"]]
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    forwards = middle[LIMIT] / 2 * evaluations
    ratios = {"of_limit": middle["own"] / forwards, "of_mezo": middle["own"] / (middle[MEZO] / STEPS)}
    return {**told, "status": "ok", "steps": STEPS, "seconds": seconds["own"], "evaluations": evaluations, **ratios}


def _stepper(here: BenchSetting, method: Method) -> ZerothOrderStepper:
    given = {name: value for name, value in (("n", MOST), ("lr", RATE)) if name in method.options}
    if "n" in given:
        given["n"] = min(int(method.options["n"]), MOST)
    estimator = methods.make(method.name, **given)
    whole = Whole(here.loss, 1)
    return ZerothOrderStepper(here.model, estimator, method.update_rule(RATE), "auto", whole=whole)


def _steps(here: BenchSetting, stepper: ZerothOrderStepper) -> Callable[[], object]:
    def steps() -> None:
        for _ in range(STEPS):
            stepper.step(derive("bench", "methods", stepper.steps), here.loss)
        stepper.settle()

    return steps


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    head = f"{'step of a method':22}{'evaluations':>12}{'seconds':>9}{'of forwards':>12}{'of mezo':>9}{'bar':>6}  held"
    return "\n".join([head, *map(_line, rows)])


def _line(row: Row) -> str:
    if row["status"] == "failed":
        return f"{row['method']:22}failed: {row['reason']}"
    numbers = f"{row['evaluations']:12.3g}{statistics.median(row['seconds']):9.3f}{row['of_limit']:12.2f}"
    return f"{row['method']:22}{numbers}{row['of_mezo']:9.2f}{row['bar'] or '':>6}  {row['held']}"


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table of a page."""
    lines = [
        "| method | evaluations | seconds | of as many bare forwards | of mezo's step | goal | held |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row["status"] == "failed":
            lines.append(f"| `{row['method']}` | {row['reason']} | | | | | |")
            continue
        goal = f"{row['bar']}: {'met' if row['of_mezo'] <= row['bar'] else 'missed'}" if row["bar"] else ""
        times = f"{statistics.median(row['seconds']):.3f} | {row['of_limit']:.2f} | {row['of_mezo']:.2f}"
        lines.append(f"| `{row['method']}` | {row['evaluations']:.3g} | {times} | {goal} | {row['held']} |")
    return "\n".join(lines)
