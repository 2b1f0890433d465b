"""Times a MeZO step of each engine in two checkouts, in fresh processes that take turns: old new new old ...

python tests/paired_bench.py HEAD~3 --out runs/paired      against that commit, in a worktree of its own under build/
python tests/paired_bench.py --out results/speed/paired --page docs/random.md      what was kept, into a page

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
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

HERE = Path(__file__).parents[1]
LAWS, SIZES, CLOCKS = ("gaussian", "rademacher"), ("sweep", "tiny-opt", "opt-10m"), ("wall", "processor")
SWEPT, SIDES, MARK = (4000, 5000), ("old", "new"), "<!-- sweep -->"
NUMBERS = {"gaussian": "normals", "rademacher": "signs"}
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
    """A step along one direction of each law, and the two perturbed copies that the in-forward engine looks at; the
    limit is two copies.
    """
    import torch

    from zobench import Combination, InForwardSpace, ModuleSpace, Term, methods
    from zobench.law import LAWS as laws

    module = torch.nn.Linear(SWEPT[1], SWEPT[0], bias=False).requires_grad_(True)
    space, reading, copy = ModuleSpace(module), InForwardSpace(module), torch.zeros(SWEPT)
    keys = iter(range(10**9))

    def look() -> float:
        return float(module.weight[0, 0])

    def limit() -> None:
        copy.copy_(module.weight.detach()), copy.copy_(module.weight.detach())

    for law in LAWS:
        estimator = methods.make("mezo", law=laws[law])

        def step(law: str = law) -> None:
            space.step_(Combination((Term(laws[law], next(keys), torch.ones(1, dtype=torch.float64)),)), 1e-9)

        def looks(estimator: Any = estimator) -> None:
            reading.losses(look, estimator.ask(next(keys), estimator.init()))

        for engine, job, passes in (("step", step, 1), ("perturbed copy", looks, 2)):
            about = {"size": "sweep", "engine": engine, "law": law, "threads": torch.get_num_threads()}
            yield {**about, "entries": passes * SWEPT[0] * SWEPT[1]}, job, limit


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


def rates(rows: Sequence[Row]) -> str:
    """The sweeps as a Markdown table: million entries a second of processor time, of the medians of processes."""
    lines = ["| | old | new | new / old, 95 % interval |", "|---|---|---|---|"]
    for law, engine in dict.fromkeys((row["law"], row["engine"]) for row in rows):
        mine = [row for row in rows if (row["law"], row["engine"]) == (law, engine)]
        old, new = (
            [row["entries"] / median(step for step, _ in row["processor"]) / 1e6 for row in mine if row["side"] == side]
            for side in ("old", "new")
        )
        by, low, high = quotient(old, new)
        name = f"{NUMBERS[law]}, {engine}"
        lines.append(f"| {name} | {median(old):.0f} | {median(new):.0f} | {by:.2f} ({low:.2f} to {high:.2f}) |")
    return "\n".join(lines)


def filled(page: str, rows: Sequence[Row]) -> str:
    """The page with the table of the latest sweeps, and their commits, between its two marks.

    Raises:
        ValueError: it has no two marks, or there are no sweeps.
    """
    sweeps = [row for row in rows if row["size"] == "sweep" and "entries" in row]
    parts = page.split(MARK)
    if len(parts) != 3 or not sweeps:
        raise ValueError(f"a page with two marks {MARK} and rows of the size sweep are wanted")
    begun = [
        i for i, (a, b) in enumerate(pairwise(sweeps), 1) if b["pair"] < a["pair"]
    ]  # each measurement counts from 0
    sweeps = sweeps[begun[-1] if begun else 0 :]
    commits = {row["side"]: row["environment"]["commit"] for row in sweeps}
    count = len({row["pair"] for row in sweeps})
    about = f"Old: commit `{commits['old'][:7]}`; new: `{commits['new'][:7]}`; {count} processes of each."
    return f"{parts[0]}{MARK}\n{rates(sweeps)}\n\n{about}\n{MARK}{parts[2]}"


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
    sides = list(zip(SIDES, (old, new), strict=True))
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
    parser.add_argument("old", nargs="?", help="commit to compare with; without one, rows of --out are shown")
    parser.add_argument("--pairs", type=int, default=6, help="processes of each checkout and size")
    parser.add_argument("--repetitions", type=int, default=7, help="steps in a process")
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--out", type=Path, help="folder of the run whose rows are kept; rows are added to its own")
    parser.add_argument("--page", type=Path, help="page whose table of sweeps is written again, between its marks")
    parser.add_argument("--one", help="measure this size of the checkout `old`, here, with its rows as JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(Path(options.old), options.one, options.repetitions)))
        return 0
    if not options.old and not options.out:
        parser.error("give a commit to compare with, or the folder of rows that are kept, --out")
    rows = _measured(options) if options.old else _kept(options.out)
    print(table(rows))
    if options.page:
        options.page.write_text(filled(options.page.read_text(), rows))
    return 0


def _kept(folder: Path) -> list[Row]:
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [row for row in rows if row["kind"] == "paired-bench"]


def _measured(options: argparse.Namespace) -> list[Row]:
    """The rows, each kept as it comes."""
    sys.path.insert(0, str(HERE))
    from zobench.run.records import Run

    names = ("old", "pairs", "repetitions", "sizes")
    config = {"command": "paired-bench", **{name: getattr(options, name) for name in names}}
    kept = Run(options.out, config, free=names) if options.out else None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the worktree is removed
    rows = []
    with checkout(options.old) as old:
        for row in taking_turns(old, HERE, options.sizes.split(","), options.pairs, options.repetitions):
            rows.append(row)
            if kept:
                kept.append(row)
    return rows


if __name__ == "__main__":
    sys.exit(main())
