"""A step of the plain engine with the forward compiled, in turn with the uncompiled one on the same parameters."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch

from llm.bench.setting import BenchSetting, stepper, waited
from llm.model.compiled import OFF, compile_, require_possible
from zobench.run.records import Row
from zobench.run.timing import alternating

KIND = "bench-compiled"
TOLERANCE = {"float32": 1e-4}
"""Relative difference of a compiled loss that is refused; 2e-2 in 16 bits."""


def measure(here: BenchSetting, ways: Sequence[str], repetitions: int) -> Iterator[Row]:
    """Yield a row for each way of compilation, "off" among them: seconds of a step of MeZO with Gaussian directions, of
    two bare forwards, and of the first three losses, which compile. Jobs take turns. A way that is impossible here is a
    row with its reason.

    Raises:
        RuntimeError: a compiled forward does not compute the loss.
    """
    possible = {OFF: here}
    for way in ways:
        try:
            require_possible(way, str(here.device))
        except ValueError as error:
            yield {"kind": KIND, **here.about, "compile": way, "status": "skipped", "reason": str(error)}
            continue
        possible[way] = compiled(here, way)
    first = {way: _first(each, here) for way, each in possible.items()}
    steps = {way: waited(here.device, stepper(each, "plain", "gaussian")) for way, each in possible.items()}
    forwards = {way: waited(here.device, _two(each)) for way, each in possible.items()}
    jobs = {(job, way): of[way] for way in possible for job, of in (("step", steps), ("forwards", forwards))}
    seconds = alternating({f"{job}, {way}": done for (job, way), done in jobs.items()}, repetitions)
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    for way in possible:
        yield {
            "kind": KIND, **here.about, "compile": way, "status": "ok", "first_seconds": first[way],
            "seconds": seconds[f"step, {way}"], "forwards_seconds": seconds[f"forwards, {way}"],
            "of_uncompiled": middle[f"step, {way}"] / middle[f"step, {OFF}"],
            "forwards_of_uncompiled": middle[f"forwards, {way}"] / middle[f"forwards, {OFF}"],
        }  # fmt: skip


def compiled(here: BenchSetting, way: str) -> BenchSetting:
    """Return the setting with the forward compiled, on the same parameters: modules alone are copied."""
    same = {id(tensor): tensor for tensor in (*here.model.parameters(), *here.model.buffers())}
    language_model = replace(here.objective.language_model, model=copy.deepcopy(here.model, same))
    compile_(language_model, way)
    return replace(here, model=language_model.model, objective=replace(here.objective, language_model=language_model))


@torch.no_grad()
def _first(each: BenchSetting, here: BenchSetting) -> float:
    """The seconds of the first three losses: CUDA graphs run once, are recorded, and are replayed."""
    began = time.perf_counter()
    _two(each)()
    loss = each.loss()
    seconds, right = time.perf_counter() - began, here.loss()
    if not torch.allclose(loss, right, rtol=TOLERANCE.get(here.dtype, 2e-2), atol=0):
        raise RuntimeError(f"a compiled forward gives the losses {loss.tolist()}, an uncompiled one {right.tolist()}")
    return seconds


def _two(each: BenchSetting) -> Callable[[], None]:
    """Two losses without gradients, as a step takes them: in inference mode torch would compile once more."""

    @torch.no_grad()
    def two() -> None:
        each.loss(), each.loss()

    return two


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [
        f"{'compile':14}{'a step, s':>11}{'of uncompiled':>15}{'forwards, of uncompiled':>25}{'first losses, s':>17}"
    ]
    for row in rows:
        if row["status"] != "ok":
            lines.append(f"{row['compile']:14} {row['status']}: {row['reason']}")
            continue
        lines.append(
            f"{row['compile']:14}{statistics.median(row['seconds']):11.4f}{row['of_uncompiled']:15.2f}"
            f"{row['forwards_of_uncompiled']:25.2f}{row['first_seconds']:17.1f}"
        )
    return "\n".join(lines)
