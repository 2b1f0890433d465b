"""The speed of streams; that of Monte Carlo, against the random-number bound: what drawing the directions alone would
take; and that of predictions in a large dimension.
"""

import itertools
import resource
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial

import torch

from synthetic import predictable, problems
from synthetic.options import MonteCarloBenchOptions
from zobench import methods, moments, theory
from zobench.montecarlo import CHUNK_ENTRIES, chunk_rows
from zobench.random import native, streams
from zobench.run.records import Run
from zobench.run.timing import alternating

STREAMS: dict[str, Callable[[int, int, int], object]] = {
    "words": streams.words,
    "signs": streams.signs,
    "normals": streams.normals,
    "float64 normals": partial(streams.normals, dtype=torch.float64),
}
LAWS_TIMED = ("gaussian", "sphere", "rademacher", "coordinate")


def run(options: MonteCarloBenchOptions) -> None:
    """Run the command: MonteCarloBenchOptions says what it does."""
    if options.repetitions < 1 or options.samples < 1 or options.draws < 0:
        raise ValueError(
            f"repetitions is {options.repetitions}, samples {options.samples}, draws {options.draws}: give 1 or more "
            "repetitions and samples, and draws from 0"
        )
    record = Run(options.out, {"command": "bench", **asdict(options)})
    if options.draws:
        _drawing(record, options)
    _sampling(record, options)
    if options.predict_dim:
        _predictions(record, options)


def _drawing(record: Run, options: MonteCarloBenchOptions) -> None:
    """Time each stream, natively and eagerly, as many numbers at once as Monte Carlo draws."""
    jobs: dict[str, Callable[[], object]] = {
        f"{name}|{path}": partial(_stream, draw, options.draws, path)
        for name, draw in STREAMS.items()
        for path in (("native", "eager") if native.available() else ("eager",))
    }
    print(f"{'stream, on one thread':32}{'million/s':>11}")
    for name, times in alternating(jobs, options.repetitions).items():
        speed = options.draws / statistics.median(times)
        print(f"{name.replace('|', ', '):32}{speed / 1e6:11.0f}")
        stream, path = name.split("|")
        record.append({"kind": "bench", "stream": stream, "path": path, "numbers_per_second": speed, "seconds": times})


def _stream(draw: Callable[[int, int, int], object], count: int, path: str) -> None:
    with nullcontext() if path == "native" else native.turned_off():
        for start in range(0, count, CHUNK_ENTRIES):
            draw(0, start, min(start + CHUNK_ENTRIES, count))


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
            setting = {"problem": name, "law": law, "method": method, "dim": options.predict_dim}
            record.append({"kind": "bench", "prediction": times, **setting, "threads": torch.get_num_threads()})


def draw_only(samples: int, dim: int) -> None:
    """Draw samples x dim float64 standard normals on torch's number of threads, and nothing else."""
    rows = chunk_rows(dim)

    def draw(chunk: int) -> None:
        streams.normals(chunk, 0, min(rows, samples - chunk * rows) * dim, torch.float64)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for _ in pool.map(draw, range(-(-samples // rows))):
            pass
