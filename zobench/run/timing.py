"""Times of jobs, taken side by side."""

import time
from collections.abc import Callable, Mapping

from zobench.run.progress import bar

Job = Callable[[], object]


def alternating(
    jobs: Mapping[str, Job], repetitions: int, before: Mapping[str, Job] | None = None
) -> dict[str, list[float]]:
    """Return the seconds of each job, `repetitions` times in turn: what slows the machine for a while slows all.
    `before` has what prepares a job each time, and is not timed.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    with bar(total=repetitions * len(jobs), unit="repetition", leave=False) as shown:
        for _ in range(repetitions):
            for name, job in jobs.items():
                shown.set_postfix_str(name, refresh=False)
                if before and name in before:
                    before[name]()
                began = time.perf_counter()
                job()
                seconds[name].append(time.perf_counter() - began)
                shown.update()
    return seconds
