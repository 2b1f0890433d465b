"""A streamed training run in a control group that holds less memory than its model takes."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from llm.bench.control_group import ControlGroup, limited
from llm.bench.memory import ANONYMOUS, MIB, RESIDENT, in_a_process, memory_now
from llm.bench.streamed import folder_of
from llm.cost.streamed import in_memory
from llm.model import loading
from zobench.run.records import Row

ABOVE = 1024 * MIB
"""Bytes of the group above an empty process."""
STEPS, EXAMPLES = 2, 2
_JOIN = (
    "import os, sys; file = sys.argv[1]; file and open(file, 'w').write(str(os.getpid())); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


def measure(size: str, dtype: str, batch: int, tokens: int, model: str | None = None) -> list[Row]:
    """Return a row of `llm train --engine streamed`, which takes two steps, evaluates and saves the weights, in a group
    that has 1 GiB more than a process that has loaded torch and transformers: the most anonymous memory above that
    process, and the most that the group held, with the page cache. Where no group can be made, nothing limits the run.

    Raises:
        RuntimeError: a process failed, or the system does not tell of memory.
    """
    about = {"size": size, "dtype": dtype, "batch": batch, "tokens": tokens, "steps": STEPS}
    empty = in_a_process("empty memory", _empty)
    with folder_of(size, dtype, model) as folder, tempfile.TemporaryDirectory() as out:
        weights = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
        bound = sum(in_memory(loading.skeleton(folder, dtype).model).values())
        memory = {"model_mb": weights / MIB, "bound_mb": bound / MIB, **empty}
        limit = int(empty["empty_resident_mb"] * MIB) + ABOVE
        with limited(limit) as group:
            found = _trained(_command(folder, dtype, batch, tokens, Path(out) / "run"), group)
            peak = group.peak if group else None
        found["anonymous_mb"] -= empty["empty_anonymous_mb"]
        told = {
            "group": group and group.version,
            "limit_mb": group and limit / MIB,
            "group_peak_mb": peak and peak / MIB,
        }
        return [{"kind": "bench-streamed-limited", **about, **memory, **told, **found}]


def _empty() -> Row:
    anonymous, resident = memory_now(ANONYMOUS, RESIDENT)
    return {"empty_anonymous_mb": anonymous / MIB, "empty_resident_mb": resident / MIB}


def _command(folder: str, dtype: str, batch: int, tokens: int, out: Path) -> list[str]:
    sizes = {"train": max(EXAMPLES, batch), "dev": EXAMPLES, "test": EXAMPLES, "batch": batch, "max-tokens": tokens}
    options = {"model": folder, "dtype": dtype, "task": "spam", "engine": "streamed", "steps": STEPS, **sizes}
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return ["-m", "llm", "train", *given, "--eval-every", str(STEPS), "--no-baselines", "--out", str(out)]


def _trained(command: Sequence[str], group: ControlGroup | None) -> Row:
    """Run a command of Python in a group, and watch it: its highest anonymous memory in MiB, seconds, and its status,
    which is negative if a signal ended it.
    """
    joined = [sys.executable, "-c", _JOIN, str(group.processes) if group else "", *command]
    began, highest = time.perf_counter(), 0
    with tempfile.TemporaryFile() as said:
        child = subprocess.Popen(joined, stdout=said, stderr=subprocess.STDOUT)
        try:
            while child.poll() is None:
                highest = max(highest, _anonymous(child.pid))
                time.sleep(0.01)
        finally:
            child.kill()
            child.wait()
        said.seek(max(0, said.seek(0, os.SEEK_END) - 2000))
        tail = said.read().decode(errors="replace")
    row = {"anonymous_mb": highest / MIB, "seconds": time.perf_counter() - began, "status": child.returncode}
    return row if child.returncode == 0 else {**row, "reason": tail}


def _anonymous(process: int) -> int:
    try:
        return memory_now(ANONYMOUS, process=process)[0]
    except (OSError, RuntimeError):  # it has ended
        return 0


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [f"{'a streamed run':42}{'MiB':>9}"]
    for row in rows:
        lines.append(f"{'weights':42}{row['model_mb']:9.0f}")
        lines.append(f"{'limit of the control group':42}{_mb(row['limit_mb']):>9}")
        lines.append(f"{'most in the group, with the page cache':42}{_mb(row['group_peak_mb']):>9}")
        lines.append(f"{'an empty process, anonymous':42}{row['empty_anonymous_mb']:9.0f}")
        lines.append(f"{'anonymous, above it':42}{row['anonymous_mb']:9.0f}")
        lines.append(f"{'seconds':42}{row['seconds']:9.0f}")
        lines.append(f"{'ended with status':42}{row['status']:>9}")
    return "\n".join(lines)


def _mb(value: float | None) -> str:
    return "none" if value is None else f"{value:.0f}"


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table of a page."""
    lines = [
        "| model | weights | limit of the group | most in the group, with the page cache | an empty process, anonymous "
        "| anonymous, above it | held of the model, by the shapes | seconds | ended with |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        sizes = ("model_mb", "limit_mb", "group_peak_mb", "empty_anonymous_mb", "anonymous_mb", "bound_mb")
        cells = [f"{_mb(row[name])} MiB" if row[name] is not None else "none" for name in sizes]
        lines.append(
            f"| {row['size']}, {row['dtype']} | {' | '.join(cells)} | {row['seconds']:.0f} | {row['status']} |"
        )
    return "\n".join(lines)
