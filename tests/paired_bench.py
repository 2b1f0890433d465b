"""Times a MeZO step of each engine in two checkouts, in fresh processes that take turns: old new new old ...

python tests/paired_bench.py HEAD~3 --out runs/paired      against that commit, in a worktree of its own under build/

What counts is a step over two bare forwards of the same process, and that ratio of the new checkout over the old one's:
the median of each process, then the mean of logarithms over pairs of processes, with Student's 95 % interval. Processor
time, of all threads, as well as wall time: where other work shares the machine the former is the steadier.
"""

import argparse
import json
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

HERE = Path(__file__).parents[1]
LAWS, SIZES, CLOCKS = ("gaussian", "rademacher"), ("sweep", "tiny-opt", "opt-10m"), ("wall", "processor")
SWEPT = (4000, 5000)
Row = dict[str, Any]
Job = tuple[Row, Callable[[], object], Callable[[], object]]
"""What is timed, a step of it, and what no step can do without."""


def timed(job: Callable[[], object]) -> tuple[float, float]:
    """Seconds of a call: of the clock on the wall, and of the processors."""
    wall, processor = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - wall, time.process_time() - processor


def measured(checkout: Path, size: str, repetitions: int) -> list[Row]:
    """Rows of this process, of the packages of a checkout; each step is followed by the two forwards."""
    sys.path.insert(0, str(checkout))
    import zobench

    # An editable install would find a module that an older checkout lacks in another one.
    has_run = (checkout / "zobench" / "run" / "records.py").exists()
    environment = import_module("zobench.run.records" if has_run else "zobench.records").environment
    if checkout.resolve() not in Path(zobench.__file__).resolve().parents:
        raise RuntimeError(f"zobench is imported from {zobench.__file__}, not from {checkout}")
    rows, about = [], environment()  # of the commit of that checkout
    for told, step, limit in _sweeps() if size == "sweep" else _steps(size):
        step(), limit()
        pairs = [(timed(step), timed(limit)) for _ in range(repetitions)]
        row: Row = {"kind": "paired-bench", **told}
        for number, clock in enumerate(CLOCKS):
            row[clock] = [[of_step[number], of_limit[number]] for of_step, of_limit in pairs]
        rows.append(row | {"environment": about})
    return rows


def _steps(size: str) -> Iterator[Job]:
    """A step of each engine and law, and two bare forwards."""
    from llm.bench.setting import ENGINES, setting, stepper

    ready = setting(size, "float32", 16, 48)
    for law in LAWS:
        for engine in ENGINES:
            yield {**ready.about, "engine": engine, "law": law}, stepper(ready, engine, law), ready.limit


def _sweeps() -> Iterator[Job]:
    """A step along one direction of each law, and two copies."""
    import torch

    from zobench import Combination, ModuleSpace, Term
    from zobench.law import LAWS as laws

    module = torch.nn.Linear(SWEPT[1], SWEPT[0], bias=False).requires_grad_(True)
    space, copy = ModuleSpace(module), torch.zeros(SWEPT)
    keys = iter(range(10**9))
    for law in LAWS:

        def step(law: str = law) -> None:
            space.step_(Combination((Term(laws[law], next(keys), torch.ones(1, dtype=torch.float64)),)), 1e-9)

        def limit() -> None:
            copy.copy_(module.weight.detach()), copy.copy_(module.weight.detach())

        yield {"size": "sweep", "engine": "step", "law": law, "threads": torch.get_num_threads()}, step, limit


def ratio(row: Row, clock: str) -> float:
    """A step over two bare forwards: medians of a process."""
    steps, limits = zip(*row[clock], strict=True)
    return median(steps) / median(limits)


def quotient(old: Sequence[float], new: Sequence[float]) -> tuple[float, float, float]:
    """New over old, and its 95 % interval, of pairs of processes."""
    from scipy.stats import t

    logs = [math.log(b / a) for a, b in zip(old, new, strict=True)]
    half = t.ppf(0.975, len(logs) - 1) * stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.inf
    return math.exp(mean(logs)), math.exp(mean(logs) - half), math.exp(mean(logs) + half)


def table(rows: Sequence[Row]) -> str:
    """The commits; then of each clock the medians of the ratio in both checkouts, and the quotient."""
    commits = {row["side"]: row["environment"]["commit"] for row in rows}
    lines = [f"{side}: {commits[side]}" for side in ("old", "new")]
    lines.append(
        f"{'step over two forwards (copies)':42}{'clock':>11}{'old':>7}{'new':>7}{'new/old':>9}   95 % interval"
    )
    for job in dict.fromkeys((row["size"], row["engine"], row["law"]) for row in rows):
        mine = [row for row in rows if (row["size"], row["engine"], row["law"]) == job]
        for clock in CLOCKS:
            old, new = ([ratio(row, clock) for row in mine if row["side"] == side] for side in ("old", "new"))
            by, low, high = quotient(old, new)
            name = ", ".join(job)
            lines.append(f"{name:42}{clock:>11}{median(old):7.2f}{median(new):7.2f}{by:9.3f}   {low:.3f} to {high:.3f}")
    return "\n".join(lines)


@contextmanager
def checkout(commit: str, root: Path = HERE) -> Iterator[Path]:
    """The folder of a commit, in a worktree under build/ that is removed afterwards."""
    folder = root / "build" / f"paired-{commit.replace('/', '-')}"
    git = ["git", "-C", str(root), "worktree"]
    subprocess.run([*git, "prune"], check=True)
    subprocess.run([*git, "add", "--quiet", "--force", "--detach", str(folder), commit], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def taking_turns(old: Path, new: Path, sizes: Sequence[str], pairs: int, repetitions: int) -> Iterator[Row]:
    """The rows of both checkouts; which one begins changes from pair to pair."""
    sides = [("old", old), ("new", new)]
    for size in sizes:
        for pair in range(pairs):
            for side, folder in sides if pair % 2 == 0 else sides[::-1]:
                own = ["--one", size, "--repetitions", str(repetitions)]
                command = [sys.executable, __file__, str(folder), *own]
                told = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
                for row in json.loads(told.splitlines()[-1]):
                    yield {"side": side, "pair": pair, **row}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="commit to compare with")
    parser.add_argument("--pairs", type=int, default=6, help="processes of each checkout and size")
    parser.add_argument("--repetitions", type=int, default=7, help="steps in a process")
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--out", type=Path, help="folder of the rows, which are added to those of its rows.jsonl")
    parser.add_argument("--one", help="measure this size of the checkout `old`, here, with its rows as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(Path(options.old), options.one, options.repetitions)))
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the worktree is removed
    with checkout(options.old) as old:
        rows = list(taking_turns(old, HERE, options.sizes.split(","), options.pairs, options.repetitions))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        with (options.out / "rows.jsonl").open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
