"""Kills training runs at single I/O operations on their folder, continues them, and counts those that end as an
uninterrupted run: the same weights to the bit, the same records, each row once.

python tests/kill_at.py                every operation, before, in the middle of (writes) and after it (`make soak`)
python tests/kill_at.py --kills 40     so many of them, each class among them
python tests/kill_at.py --out FOLDER   a row for each kill in FOLDER/rows.jsonl; kills that have one are not repeated
"""

import argparse
import ctypes
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import soak
import torch

from zobench.run.records import Run

SOURCE = Path(__file__).with_suffix(".c")
LIBRARY = "KILL_AT_LIBRARY"
MOMENTS = ("before", "within", "after")
TEMPORARY = re.compile(r"(?<=\.tmp)\w{6}")  # the random part of a name
SHORT = {"steps": 7, "eval_every": 3, "checkpoint_every": 2, "train": 16, "dev": 6, "test": 6}


class Kill(NamedTuple):
    """Where a run is killed: at the number-th operation, which is of this name and on this file."""

    method: str
    number: int
    operation: str
    file: str
    moment: str

    @property
    def kind(self) -> tuple[str, str, str]:
        """The class under which it is counted."""
        return self.operation, self.moment, self.method


def built(folder: Path) -> Path | None:
    """Compile the library; None without a C compiler."""
    compiler = next(filter(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang"))), None)
    library = folder / "kill_at.so"
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"], check=True)
    return library


def armed(out: Path, log: Path | None, number: int, moment: str) -> soak.Patch:
    """In the process of a run: end it at an operation; only write the log for number 0."""

    def patch() -> None:
        library = ctypes.CDLL(os.environ[LIBRARY])  # preloaded, so this is the one that is asked
        library.kill_at(os.fsencode(out), os.fsencode(log) if log else None, number, MOMENTS.index(moment))

    return patch


def counted(work: Path, method: str) -> tuple[tuple, list[Kill]]:
    """What an uninterrupted run leaves, and every kill that can meet one."""
    out, log = work / f"whole-{method[:3]}", work / "operations.txt"
    if soak.finish(soak.start(work, out, armed(out, log, 0, "before"), method, SHORT)) != 0:
        raise RuntimeError((work / "log.txt").read_text())
    kills = []
    for number, line in enumerate(log.read_text().splitlines(), 1):
        operation, _, path = line.partition(" ")
        file = os.path.relpath(path, out)
        moments = MOMENTS if operation in ("write", "pwrite") else (MOMENTS[0], MOMENTS[2])
        kills += [Kill(method, number, operation, file, moment) for moment in moments]
    return soak.what_counts(out), kills


def sample(kills: Sequence[Kill], most: int | None, seed: int) -> list[Kill]:
    """So many of the kills in their order, drawn so that every class has its turn."""
    turns: Counter[tuple[str, str, str]] = Counter()
    ranked = []
    for place in random.Random(seed).sample(range(len(kills)), len(kills)):
        kind = kills[place].kind
        ranked.append((turns[kind], place))
        turns[kind] += 1
    ranked.sort(key=lambda pair: pair[0])
    return [kills[place] for place in sorted(place for _, place in ranked[:most])]


def held(work: Path, kill: Kill, wanted: tuple) -> bool:
    """Kill a run, continue it, and return whether it ends as the uninterrupted one."""
    out = work / "killed"
    shutil.rmtree(out, ignore_errors=True)
    status = soak.finish(soak.start(work, out, armed(out, None, kill.number, kill.moment), kill.method, SHORT))
    ended = soak.finish(soak.start(work, out, lambda: None, kill.method, SHORT))
    good = status == -signal.SIGKILL and ended == 0 and soak.what_counts(out) == wanted
    if not good:
        print(f"NOT HELD: {kill} (ended with {status}, then {ended})")
    return good


def tried(
    work: Path, methods: Sequence[str], most: int | None, seed: int, run: Run | None = None
) -> Counter[tuple[str, str, str, bool]]:
    """Kill runs of these methods and return how many of each class were held, and how many not."""
    whole = {method: counted(work, method) for method in methods}
    kills = [kill for _, found in whole.values() for kill in found]
    for method, (_, found) in whole.items():
        print(f"{method}: {max(kill.number for kill in found)} operations, {len(found)} places for a kill", flush=True)
    counts: Counter[tuple[str, str, str, bool]] = Counter()
    for kill in sample(kills, most, seed):
        row = {**kill._asdict(), "file": TEMPORARY.sub("", kill.file)}
        known = run.find(**row) if run else []
        good = known[-1]["held"] if known else held(work, kill, whole[kill.method][0])
        if run and not known:
            run.append({**row, "held": good}, sync=False)
        counts[(*kill.kind, good)] += 1
    return counts


def told(counts: Counter[tuple[str, str, str, bool]], methods: Sequence[str]) -> str:
    """The table: operation and moment down, methods across."""
    lines = [f"{'':18}" + "".join(f"{method:>14}" for method in methods)]
    kinds = {(operation, moment) for operation, moment, *_ in counts}
    for kind in sorted(kinds, key=lambda kind: (kind[0], MOMENTS.index(kind[1]))):
        numbers = [(counts[*kind, method, True], counts[*kind, method, False]) for method in methods]
        lines.append(f"{' '.join(kind):18}" + "".join(f"{f'{good} of {good + bad}':>14}" for good, bad in numbers))
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, help="so many; without: every one")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="+", default=list(soak.METHODS), choices=soak.METHODS)
    parser.add_argument("--out", type=Path, help="folder of the rows, in which an interrupted run continues")
    arguments = parser.parse_args(argv)
    work = Path(tempfile.mkdtemp(prefix="kill-at-"))
    try:
        if LIBRARY not in os.environ:
            return preloaded(work, sys.argv[1:] if argv is None else argv)
        torch.set_num_threads(1)
        soak.small_model(work / "model")
        run = Run(arguments.out, {"methods": arguments.methods, "seed": arguments.seed}) if arguments.out else None
        counts = tried(work, arguments.methods, arguments.kills, arguments.seed, run)
        good = sum(number for (*_, kept), number in counts.items() if kept)
        print(told(counts, arguments.methods))
        print(f"{good} of {counts.total()} kills at single I/O operations held")
        return 0 if good == counts.total() else 1
    finally:
        shutil.rmtree(work)


def preloaded(work: Path, argv: Sequence[str]) -> int:
    """Run the same command again with the library loaded before all others."""
    library = built(work)
    if library is None:
        print("kills at I/O operations: skipped: no C compiler, or not Linux")
        return 0
    own = {**os.environ, "LD_PRELOAD": str(library), LIBRARY: str(library)}
    return subprocess.run([sys.executable, __file__, *argv], env=own).returncode


if __name__ == "__main__":
    sys.exit(main())
