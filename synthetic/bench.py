"""The speed of Monte Carlo, against the random-number bound: what drawing the directions alone would take; and that of
predictions in a large dimension.
"""

import itertools
import resource
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch

from synthetic import predictable, problems
from zobench import methods, moments, theory
from zobench.montecarlo import chunk_rows
from zobench.run.options import option
from zobench.run.records import Run
from zobench.run.timing import alternating

LAWS_TIMED = ("gaussian", "sphere", "rademacher", "coordinate")


@dataclass(frozen=True)
class MonteCarloBenchOptions:
    """Options of `python -m synthetic bench`."""

    methods: tuple[str, ...] = option(("mezo", "kerzoo", "kerzoo:law=rademacher"), "name[:option=value]...")
    problem: str = option("quartic", f"quadratic, cubic, quartic, sextic, or {problems.catalogue.OWN}")
    dim: int = option(16, "number of variables")
    samples: int = option(10_000_000, "estimates a repetition")
    repetitions: int = option(3, "alternating repetitions; their median is printed")
    predict_dim: int = option(1000, "number of variables of the problems that are predicted; 0 leaves predictions out")
    out: str = option("runs/bench", "folder of the results; every call appends rows")


def run(options: MonteCarloBenchOptions) -> None:
    """Time `moments` and print estimates per second and the share of the random-number bound."""
    if options.repetitions < 1 or options.samples < 1:
        raise ValueError(f"repetitions is {options.repetitions}, samples {options.samples}: give 1 or more")
    record = Run(options.out, {"command": "bench", **asdict(options)})
    _sampling(record, options)
    if options.predict_dim:
        _predictions(record, options)


def _sampling(record: Run, options: MonteCarloBenchOptions) -> None:
    problem = problems.make(options.problem, options.dim)
    x, dim = problems.start(problem), problem.dim
    jobs: dict[str, Callable[[], object]] = {"bound": lambda: draw_only(options.samples, dim)}
    for method in options.methods:
        estimator = methods.parse(method, epsilon=0.1)
        jobs[method] = partial(moments, estimator, problem, x, samples=options.samples, layout=[dim])
    seconds = alternating(jobs, options.repetitions)
    bound = statistics.median(seconds.pop("bound"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{options.samples:.3g} estimates in d = {dim}; drawing their float64 normals alone: {bound:.2f} s")
    print(f"{'method':26}{'seconds':>9}{'estimates/s':>14}{'share of bound':>16}")
    for name, times in seconds.items():
        middle = statistics.median(times)
        print(f"{name:26}{middle:9.2f}{options.samples / middle:14.4g}{bound / middle:16.1%}")
        rates = {"seconds": times, "bound_seconds": bound, "samples": options.samples, "dim": dim}
        record.append({"kind": "bench", "method": name, **rates, "peak_gib": peak, "threads": torch.get_num_threads()})
    print(f"peak resident size of the process: {peak:.2f} GiB")


def _predictions(record: Run, options: MonteCarloBenchOptions) -> None:
    """Time the exact error, and the expected descent, of two estimators under each law, problem by problem."""
    print(f"predictions in d = {options.predict_dim}, each without cached results")
    print(f"{'problem':22}{'law':14}{'method':10}{'seconds':>9}")
    for name, degree in (("separable", "sextic"), ("quartic", "ridge sum"), ("sextic", "ridge sum")):
        problem = problems.make(name, options.predict_dim)
        x = problems.start(problem)
        for law, method in itertools.product(LAWS_TIMED, ("mezo", "forward")):
            estimator = predictable.parse(f"{method}:law={law}", epsilon=0.1)
            jobs: dict[str, Callable[[], object]] = {
                "mse": partial(theory.mse, estimator, problem, x, 1e-3),
                "descent": partial(theory.best_lr, estimator, problem, x, 1e-3),
            }
            times = {job: statistics.median(t) for job, t in alternating(jobs, options.repetitions).items()}
            shown = "".join(f"{job} {seconds:.2f}  " for job, seconds in times.items())
            print(f"{name + ', ' + degree:22}{law:14}{method:10}{shown:>20}")
            place = {"problem": name, "law": law, "method": method, "dim": options.predict_dim}
            record.append({"kind": "bench", "prediction": times, **place, "threads": torch.get_num_threads()})


def draw_only(samples: int, dim: int) -> None:
    """Draw samples x dim float64 standard normals on torch's number of threads, and nothing else."""
    rows = chunk_rows(dim)

    def draw(chunk: int) -> None:
        np.random.Generator(np.random.SFC64(chunk)).standard_normal((min(rows, samples - chunk * rows), dim))

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(draw, range(-(-samples // rows))):
            pass
