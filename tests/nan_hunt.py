"""Hunts for a NaN: steps in bfloat16 in poisoned memory, beside a process that never rests.

python tests/nan_hunt.py --steps 10000 --out runs/hunt      (`make hunt`); given again it adds rows, of other keys

Memory is poisoned three times over: torch fills the tensors that it makes and scratch is filled with NaN before it is
handed out, and glibc fills memory that is allocated and memory that is freed. A process takes ROUNDS runs of each
setting, each of STEPS steps from fresh weights on a new space. A run must be finite everywhere, and end with the
losses and parameters, to the bit, of the in-forward engine with torch's sweep on one thread in clean scratch; the plain
engine, which rounds on the way to a point and back, must only be finite.

A row is a setting of a process, or a process: how it ended, what it said, and the machine's load of 5 minutes. No
process has a limit of time: where others share the machine, one may wait for minutes.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "2")
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from engines import IN_FORWARD, Net, bits, loss_of, space_of, swept_by, threads
from torch import Tensor

from zobench import derive, layout, methods, query
from zobench.run.records import Row, Run
from zobench.space import in_forward, scratch

STEPS, ROUNDS = 20, 3
WIDTHS = (8, 24)
"""Products of both have tails, rows and columns that fill no tile of the processor's matrix unit."""
BLOCK = 200
"""So small that parameters have many blocks, of which two threads take turns; C draws those of matrices."""
MALLOC = ("255", "128")
"""What glibc writes over freed memory, and the complement over allocated: NaN and 0, a tiny number and 3e38."""


class Setting(NamedTuple):
    """An engine, whose sweep it uses, and how many threads."""

    engine: str
    sweep: str
    threads: int


SETTINGS = [
    Setting(engine, sweep, number)
    for engine in ("plain", *IN_FORWARD)
    for sweep in ("native", "eager")
    for number in (1, 2)
]


class Watch:
    """Counts the tensors looked at, by kind, and notes those that are not finite: where the first one is of the kinds
    read or stored it was made in this package, of a layer or a loss in the forward.
    """

    def __init__(self) -> None:
        self.looked: Counter[str] = Counter()
        self.wrong: list[str] = []

    def see(self, kind: str, where: str, value: Any) -> None:
        """Look at a tensor."""
        if isinstance(value, Tensor):
            self.looked[kind] += 1
            places = (~torch.isfinite(value)).flatten().nonzero().flatten().tolist()
            if places:
                self.wrong.append(f"{kind} {where}: {len(places)} of {value.numel()}, the first at {places[0]}")

    @contextmanager
    def reads(self) -> Iterator[None]:
        """The context in which everything that an engine hands to a layer is looked at."""
        whole, rows = in_forward.View.whole, in_forward.View.rows

        def seen(read: Callable[..., Tensor]) -> Callable[..., Tensor]:
            def looked_at(view: in_forward.View, name: str, *wanted: Tensor) -> Tensor:
                value = read(view, name, *wanted)
                self.see("read", name, value)
                return value

            return looked_at

        in_forward.View.whole, in_forward.View.rows = seen(whole), seen(rows)
        try:
            yield
        finally:
            in_forward.View.whole, in_forward.View.rows = whole, rows


@contextmanager
def poisoned() -> Iterator[None]:
    """The context in which memory that nothing was written to reads as NaN."""
    like = scratch.Scratch.like

    def filled(self: scratch.Scratch, *arguments: Any) -> Tensor:
        return like(self, *arguments).fill_(float("nan"))

    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    scratch.Scratch.like = filled
    try:
        yield
    finally:
        scratch.Scratch.like = like
        torch.use_deterministic_algorithms(False)


def one_run(engine: str, number: int, watch: Watch, steps: int = STEPS) -> str:
    """Take the steps of a run, and return a digest of its losses and parameters: as far as they could be taken."""
    module = Net(dtype=torch.bfloat16, width=WIDTHS[number % len(WIDTHS)])
    for name, layer in module.named_modules():
        layer.register_forward_hook(lambda _, __, out, name=name: watch.see("layer", name, out))
    space, estimator = space_of(engine, module), methods.make("mezo", n=2, law="rademacher")
    digest, f, state = hashlib.sha256(), loss_of(module), estimator.init()
    for step in range(steps):
        told = query(space, estimator, f, derive("hunt", number, step), state)
        state = told.state
        watch.see("loss", f"of step {step}", told.losses)
        digest.update(bits(told.losses).numpy().tobytes())
        if watch.wrong:
            return digest.hexdigest()  # a step along it would be refused
        space.step_(told.gradient, -1e-3)
    space.settle_()
    for name, parameter in module.named_parameters():
        watch.see("stored", name, parameter.detach())
        digest.update(bits(parameter).numpy().tobytes())
    return digest.hexdigest()


@cache
def wanted(number: int, steps: int = STEPS) -> str:
    """The digest of a run in clean scratch."""
    with swept_by("eager"), threads(1):
        return one_run("in-forward", number, Watch(), steps)


def hunted(setting: Setting, numbers: Sequence[int], steps: int = STEPS) -> Row:
    """The row of these runs of a setting in poisoned memory."""
    watch, differ = Watch(), []
    for number in numbers:
        with swept_by(setting.sweep), threads(setting.threads), poisoned(), watch.reads():
            ours = one_run(setting.engine, number, watch, steps)
        if setting.engine != "plain" and ours != wanted(number, steps):
            differ.append(number)
    row = {"kind": "hunt", **setting._asdict(), "runs": list(numbers), "steps": steps * len(numbers)}
    return row | {"looked": dict(watch.looked), "not_finite": watch.wrong[:5], "differ": differ}


def here(numbers: Sequence[int]) -> None:
    """Print the row of each setting, in this process."""
    layout.BLOCK_SIZE = BLOCK
    for setting in SETTINGS:
        print(json.dumps(hunted(setting, numbers)), flush=True)


def in_a_process(first: int, malloc: str) -> Iterator[Row]:
    """The rows of a process of its own, and then its own row."""
    command = [sys.executable, "-X", "faulthandler", __file__, "--first", str(first)]
    environment = os.environ | {"MALLOC_PERTURB_": malloc, "PYTHONMALLOC": "malloc"}
    lines: list[str] = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as it:
        try:
            for line in it.stdout or ():
                if line.startswith("{"):
                    yield {**json.loads(line), "malloc": malloc}
                else:
                    lines.append(line)
        finally:
            it.kill()  # has ended, or nobody listens any more
    row = {"kind": "process", "first": first, "malloc": malloc, "load": round(os.getloadavg()[1], 1)}
    yield row | {"ended": it.returncode, "said": lines[-20:]}


def is_bad(row: Row) -> bool:
    """Whether a row is of a process that was lost, or of runs that were not as they must be."""
    return bool(row["ended"]) if row["kind"] == "process" else bool(row["not_finite"] or row["differ"])


def told(rows: Sequence[Row]) -> str:
    """The last line: what all rows add up to."""
    hunts = [row for row in rows if row["kind"] == "hunt"]
    looked: Counter[str] = sum((Counter(row["looked"]) for row in hunts), Counter())
    lost = sum(is_bad(row) for row in rows if row["kind"] == "process")
    tensors = ", ".join(f"{number:,} {kind}" for kind, number in looked.items())
    not_finite, differ = (sum(bool(row[name]) for row in hunts) for name in ("not_finite", "differ"))
    steps = sum(row["steps"] for row in hunts)
    return (
        f"{steps:,} steps, {not_finite} settings with a number that is not finite, {differ} "
        f"that differ, {lost} processes lost; tensors looked at: {tensors}"
    )


@contextmanager
def load(number: int) -> Iterator[None]:
    """So many processes beside this one that never rest."""
    busy = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
    others = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(number)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10_000, help="of all settings together, at least")
    parser.add_argument("--load", type=int, default=1, help="processes that never rest")
    parser.add_argument("--out", type=Path, default=Path("runs/hunt"), help="folder of the rows")
    parser.add_argument("--first", type=int, help="take the runs from this number on, here, and print their rows")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no process is left behind
    if options.first is not None:
        here(range(options.first, options.first + ROUNDS))
        return 0
    run, steps = Run(options.out, {"block": BLOCK, "steps_of_a_run": STEPS}), 0
    known, found = len(run.find(kind="process")), []
    with load(options.load):
        for number in count(known):
            for row in in_a_process(number * ROUNDS, MALLOC[number % len(MALLOC)]):
                run.append(row)
                found.append(row)
                steps += row.get("steps", 0)
                if is_bad(row):
                    print(row, flush=True)
            if steps >= options.steps:
                break
    print(told(run.find(kind="hunt") + run.find(kind="process")))
    return int(any(map(is_bad, found)))


if __name__ == "__main__":
    sys.exit(main())
