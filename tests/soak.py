"""Kills real training processes and counts those that, continued, end with the weights of an uninterrupted run.

python tests/soak.py --kills 50      at random instants (`make soak`); writes are slowed down, so that kills meet them
python tests/soak.py --instants      at seven chosen instants, each in the middle of something
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import OPTConfig, OPTForCausalLM

from llm.loop.train import train
from llm.model import loading
from llm.model.language_model import LanguageModel
from llm.options.train import TrainOptions
from llm.steppers.zeroth_order import ZerothOrderStepper
from zobench.run.journal import read
from zobench.run.records import Run

RUN = {"steps": 14, "lr": 3e-3, "batch": 4, "train": 20, "dev": 10, "test": 10}
RUN |= {"max_tokens": 24, "eval_every": 5, "checkpoint_every": 4, "weight_decay": 0.01, "schedule": "cosine"}
RUN |= {"seed": 2}  # under which the dev loss is least at step 10
METHODS = {"kerzoo:n=2": {}, "adamw": {"lr": 1e-3}, "sgd": {"lr": 1e-2}}
Patch = Callable[[], None]
PATIENCE = 120.0


def small_model(folder: Path) -> None:
    """A random OPT that steps in milliseconds, with tiny-opt's tokenizer."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 2000, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32}
    model = OPTForCausalLM(OPTConfig(**sizes, max_position_embeddings=64, word_embed_proj_dim=16))
    loading.save(LanguageModel("random", model, loading.load("tiny-opt").tokenizer, ""), folder)


def start(
    work: Path, out: Path, patch: Patch, method: str = "kerzoo:n=2", changed: Mapping[str, object] | None = None
) -> int:
    """Train in a process of its own and return its number."""
    pid = os.fork()
    if pid:
        return pid
    try:
        log = os.open(work / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        patch()
        options = RUN | {"method": method} | METHODS[method] | dict(changed or {})
        train(TrainOptions(**options, model=str(work / "model"), out=str(out)))
        os._exit(0)
    except BaseException:
        os.write(2, traceback.format_exc().encode())
        os._exit(1)


def finish(pid: int) -> int:
    """Wait for a process and return its exit status, negative if a signal ended it."""
    began = time.monotonic()
    while time.monotonic() - began - starved(pid) < PATIENCE:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    raise RuntimeError("a run hangs")


def starved(pid: int) -> float:
    """The seconds in which a process waited for a processor: on a busy machine it is slow, and does not hang."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_write(suffix: str, count: int, share: float) -> Patch:
    """Die within the count-th write to files of this name, when so much of it is written."""

    def patch() -> None:
        write, seen = os.write, [0]

        def dying(descriptor: int, data: bytes) -> int:
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith(suffix):
                seen[0] += 1
                if seen[0] == count:
                    write(descriptor, data[: int(len(data) * share)])
                    die()
            return write(descriptor, data)

        os.write = dying

    return patch


def at_row(kind: str, count: int) -> Patch:
    """Die before the count-th row of a kind is written."""

    def patch() -> None:
        append, seen = Run.append, [0]

        def dying(self: Run, row: Mapping[str, object], sync: bool = True) -> None:
            seen[0] += row["kind"] == kind
            if seen[0] == count:
                die()
            append(self, row, sync)

        Run.append = dying

    return patch


def at_replace(suffix: str, count: int) -> Patch:
    """Die before the count-th file that ends so is renamed into its place."""

    def patch() -> None:
        replace, seen = os.replace, [0]

        def dying(source: object, target: object) -> None:
            seen[0] += str(target).endswith(suffix)
            if seen[0] == count:
                die()
            replace(source, target)

        os.replace = dying
        Path.replace = lambda self, target: dying(self, target)

    return patch


INSTANTS: dict[str, Patch] = {
    "half of a record": at_write("journal.bin", 7, 0.5),
    "after the step, before its record": at_write("journal.bin", 9, 0.0),
    "half of a row": at_write("rows.jsonl", 11, 0.5),
    "a checkpoint not yet renamed": at_replace("step-00000008.safetensors", 1),
    "better weights not yet renamed": at_replace("best.safetensors", 1),
    "better weights in place, before the row that selects them": at_row("evaluation", 3),
    "the tuned weights half in place": at_replace("model/model.safetensors", 1),
}


def slowly() -> None:
    """Write in three parts, with pauses, so that a random instant is often within a write."""
    write = os.write

    def slow(descriptor: int, data: bytes) -> int:
        for part in (data[: len(data) // 3], data[len(data) // 3 : len(data) // 2]):
            write(descriptor, part)
            time.sleep(0.005)
        return len(data) // 2 + write(descriptor, data[len(data) // 2 :])

    os.write = slow


def forgetful() -> None:
    """Planted: a replay that adds up the steps without walking to their points, as rounding errors do not add up."""

    def replay(self: ZerothOrderStepper, records: list, first: int = 0) -> int:
        losses = self.space.losses
        self.space.losses = lambda f, plan: torch.zeros_like(plan.offsets)
        try:
            for record in records:
                self._repeat(record, walk=record.step >= first)
        finally:
            self.space.losses = losses
        return len(records)

    ZerothOrderStepper.replay = replay


def what_counts(out: Path) -> tuple:
    """Weights, records, rows and names of files of a finished run, without times."""
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    own = {"seconds", "peak_mb"}
    kept = [{k: v for k, v in row.items() if k not in own} for row in rows if row["kind"] in ("evaluation", "final")]
    steps = sorted((row["kind"], row.get("step", -1)) for row in rows if row["kind"] != "environment")  # each row once
    records = [repr(record._replace(seconds=0.0)) for record in read(out / "journal.bin").records]
    # Nothing is left of a killed write. Checkpoints may be of other steps.
    found = (re.sub(r"\d+", "", str(path.relative_to(out))) for path in out.rglob("*"))
    files = sorted(found)
    return (out / "model/model.safetensors").read_bytes(), records, kept, steps, files


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--instants", type=int, nargs="?", const=7, help="so many of seven chosen instants instead")
    parser.add_argument("--planted", action="store_true", help="continue with a replay that is wrong on purpose")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    work = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        small_model(work / "model")
        return soak(work, arguments)
    finally:
        shutil.rmtree(work)


def soak(work: Path, arguments: argparse.Namespace) -> int:
    chosen = arguments.instants or 0
    names = list(METHODS)[: 1 if chosen else None]
    wanted, lengths = {}, {}
    for method in names:
        began = time.monotonic()
        if finish(start(work, work / "whole", slowly, method)) != 0:
            print((work / "log.txt").read_text())
            return 1
        wanted[method], lengths[method] = what_counts(work / "whole"), time.monotonic() - began
        shutil.rmtree(work / "whole")
    drawn = random.Random(arguments.seed)
    trials = list(INSTANTS)[:chosen] or [None] * arguments.kills
    held, killed, torn = Counter(), 0, 0
    for number, trial in enumerate(trials):
        method = names[number % len(names)]
        out, status = work / f"run-{number}", 0
        while status != -signal.SIGKILL:  # drawn again if the run ended before
            shutil.rmtree(out, ignore_errors=True)
            instant = trial or drawn.uniform(0.0, lengths[method])
            status = killed_at(work, out, instant, method)
            if trial and status != -signal.SIGKILL:
                raise RuntimeError(f"the run ended with {status} and never came to this instant: {trial}")
            if not trial and status != -signal.SIGKILL:
                lengths[method] = min(lengths[method], instant)  # it takes less than that
        killed += status == -signal.SIGKILL
        torn += (out / "journal.bin").exists() and read(out / "journal.bin").torn > 0
        ended = finish(start(work, out, forgetful if arguments.planted else lambda: None, method))
        good = ended == 0 and what_counts(out) == wanted[method]
        held[method] += good
        if chosen or not good:
            print(f"{trial or method}: {'held' if good else 'NOT HELD'} (ended with {status}, then {ended})")
        if good:
            shutil.rmtree(out)
    each = ", ".join(f"{number} of {method}" for method, number in held.items())
    print(f"{held.total()} of {len(trials)} held ({each}); {killed} were killed, {torn} within a record of the journal")
    if held.total() < len(trials) and not arguments.planted:
        print((work / "log.txt").read_text()[-3000:])
    return 0 if held.total() == len(trials) else 1


def killed_at(work: Path, out: Path, trial: str | float, method: str) -> int:
    """Start a run and kill it at a named instant, or after so many seconds."""
    if isinstance(trial, str):
        return finish(start(work, out, INSTANTS[trial], method))
    pid = start(work, out, slowly, method)
    time.sleep(trial)
    os.kill(pid, signal.SIGKILL)
    return finish(pid)


if __name__ == "__main__":
    sys.exit(main())
